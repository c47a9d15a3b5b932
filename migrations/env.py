"""Alembic runs this file for every command that needs the database; mlops_db.migration does the work."""

from alembic import context

from mlops_db.migration.run import run
from mlops_db.schema.head import metadata

run(context, target_metadata=metadata)
