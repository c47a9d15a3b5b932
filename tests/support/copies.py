"""Copies of the template at head, for the tests of a module together."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import sql

from support.database import Database


@contextmanager
def copy_of_head(template: Any, name: str) -> Iterator[Database]:
    """Create a database at head for the block.

    Args:
        template: the fixture `_head_template`.
        name: of the database.
    """
    connect = {"host": template.host, "port": template.port, "user": template.user, "password": template.password}
    with psycopg.connect(**connect, dbname="postgres", autocommit=True) as server:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        server.execute(create.format(sql.Identifier(name), sql.Identifier(template.template_dbname)))
        try:
            with psycopg.connect(**connect, dbname=name) as connection:
                yield Database.of(connection)
        finally:
            drop_database(server, name)


def drop_database(server: psycopg.Connection[Any], name: str) -> None:
    """Drop a database, whoever uses it. With Citus, its daemon may start once more after DROP has ended it: then again.

    Args:
        server: a connection to another database, in autocommit.
        name: of the database.
    """
    drop = sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name))
    for _ in range(10):
        with suppress(psycopg.errors.ObjectInUse):
            server.execute(drop)
            return
    server.execute(drop)
