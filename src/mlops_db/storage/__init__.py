"""The storage layer for monitoring and retraining jobs: a pool of connections, and methods for the tables.

`db_manager` is the entry point. Its `models`, `monitoring` and `decisions` are the modules `model_versions`,
`monitoring` and `decisions`; `metrics` has the rows of metrics. Nothing is imported here, so that `mlops_db` exports
`DatabaseManager` without loading SQLAlchemy or psycopg2.
"""
