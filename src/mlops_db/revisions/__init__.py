"""The graph of revisions, and the one that a database is at: what runs, jobs, `status`, `init` and `check` ask.

Read without Alembic and SQLAlchemy: a job or a container that starts does not wait for them to load.
"""
