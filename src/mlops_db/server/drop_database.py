"""Drops a database that others may still use."""

import psycopg2
from psycopg2 import sql

from mlops_db.server.cursor import SafeCursor

# FORCE ends sessions that an interruption left open, and fails if we may not end one. Without it the server ends its
# own workers, and waits some seconds for others.
_DROP = ("DROP DATABASE IF EXISTS {} WITH (FORCE)", "DROP DATABASE IF EXISTS {}")


def drop_database(cursor: SafeCursor, name: str) -> None:
    """Drop the database if it exists, and end its sessions.

    Args:
        cursor: of another database, in autocommit.
        name: of the database.

    Raises:
        psycopg2.Error: the server refuses, such as while a session of another role stays.
    """
    force, patient = (sql.SQL(statement).format(sql.Identifier(name)) for statement in _DROP)
    try:
        cursor.execute_alone(force)
    except psycopg2.Error:
        cursor.execute_alone(patient)
