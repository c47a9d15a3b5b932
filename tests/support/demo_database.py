"""A database that the demo has filled, for tests that only read it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from mlops_db.demo.fill import fill
from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database


@contextmanager
def demo_database(template: Any, *, name: str, days: int) -> Iterator[Database]:
    """Create it from pytest-postgresql's template, which is at head; drop it at the end."""
    connect = {"host": template.host, "port": template.port, "user": template.user, "password": template.password}
    with psycopg.connect(**connect, dbname="postgres", autocommit=True) as server:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        server.execute(create.format(sql.Identifier(name), sql.Identifier(template.template_dbname)))
        try:
            with psycopg.connect(**connect, dbname=name) as connection:
                database = Database.of(connection)
                with DatabaseManager(database.settings) as db:
                    fill(db, days=days, seed=1, progress=lambda _done, _all: None)
                yield database
        finally:
            server.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name)))
