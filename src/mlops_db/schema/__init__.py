"""The schema at head, as SQLAlchemy metadata, with which autogenerate compares a database; and the limits of columns.

Each table has a module, the views have one, and `limits` has the lengths, choices and ranges. Nothing is imported here,
because `mlops_db.project` and `mlops_db.server.guests` serve commands that must not load SQLAlchemy.
"""
