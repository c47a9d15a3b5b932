"""The schema at head, as SQLAlchemy metadata: what autogenerate compares a database with.

One module a table, one for the views. Nothing is imported at this level, because `mlops_db.project` and
`mlops_db.server.guests` serve commands that must not load SQLAlchemy.
"""
