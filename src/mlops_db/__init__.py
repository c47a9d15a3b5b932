"""The `mlops` metadata database: its schema under Alembic, and the layer that jobs store through."""
