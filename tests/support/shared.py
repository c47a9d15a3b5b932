"""A database at head that the tests of a module share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from support.database import Database


@contextmanager
def shared_database(template: Any, name: str) -> Iterator[Database]:
    """Copy a template of pytest-postgresql for the block. Tests only read it, or roll back what they write."""
    connect = {"host": template.host, "port": template.port, "user": template.user, "password": template.password}
    with psycopg.connect(**connect, dbname="postgres", autocommit=True) as server:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        server.execute(create.format(sql.Identifier(name), sql.Identifier(template.template_dbname)))
        try:
            with psycopg.connect(**connect, dbname=name) as connection:
                yield Database.of(connection)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))
