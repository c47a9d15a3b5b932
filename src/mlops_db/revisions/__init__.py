"""The graph of revisions, and the gate that reads the revision of a database for runs, jobs and commands.

Nothing here imports Alembic or SQLAlchemy, so that jobs and containers start without waiting for them.
"""
