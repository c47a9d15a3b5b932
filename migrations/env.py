"""What Alembic runs for every command that needs the database; the work is done in mlops_db.migration."""

from alembic import context

from mlops_db.migration.run import run
from mlops_db.schema import load_tables
from mlops_db.schema.base import metadata

run(context, target_metadata=metadata, load_tables=load_tables)
