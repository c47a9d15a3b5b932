"""`mlops-db`: the commands that Alembic does not have. Each is thin: the work is done in the other folders."""
