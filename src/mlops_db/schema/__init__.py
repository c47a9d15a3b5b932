"""The schema at head, as SQLAlchemy metadata: what autogenerate compares a database with.

One module a table, one for the views, one for the revisions that lead here. Nothing is imported at this level, because
`mlops_db.schema.revisions` serves commands that must not load SQLAlchemy.
"""
