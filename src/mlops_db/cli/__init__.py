"""`mlops-db`: thin commands over the rest of the package, for what Alembic has no word for."""
