"""The schema at head, as SQLAlchemy metadata: what autogenerate compares a database with.

One module a table, one for the views. Nothing is imported at this level, because `mlops_db.project` and
`mlops_db.server.guests` serve commands that must not load SQLAlchemy.
"""


def load_tables() -> None:
    """Add every table and view to the metadata; it takes 5 ms, which upgrades do without."""
    import mlops_db.schema.head  # noqa: F401, PLC0415  (importing it adds them)
