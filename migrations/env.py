"""What Alembic runs for every command that needs the database; the work is done in mlops_db.migration."""

from alembic import context

from mlops_db.migration.run import run

run(context)
