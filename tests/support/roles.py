"""Roles that live for one test, such as an owner that is no superuser."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from mlops_db.settings import Settings
from support.database import Database
from support.sessions import wait_until

PASSWORD = "of this test"  # noqa: S105  (not a secret)


@contextmanager
def role(database: Database, name: str, attributes: str = "LOGIN") -> Iterator[Settings]:
    """Create a role for the block; gives the settings that connect as it. Its objects are dropped with it."""
    identifier = sql.Identifier(name)
    database.connection.execute(
        sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(identifier, sql.SQL(attributes), sql.Literal(PASSWORD))
    )
    try:
        yield replace(database.settings, user=name, password=PASSWORD)
    finally:
        # A session that ends drops its temporary tables. REASSIGN must not meet them at that moment.
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        wait_until(lambda: not database.value(sessions, [name]), f"the sessions of {name} to end")
        # By name: with CURRENT_USER a server with Citus crashes (13.2.2, 14.0.1).
        us = sql.Identifier(database.connection.info.user)
        for statement in ("REASSIGN OWNED BY {} TO {us}", "DROP OWNED BY {}", "DROP ROLE {}"):
            database.connection.execute(sql.SQL(statement).format(identifier, us=us))


@contextmanager
def owner(database: Database, name: str = "mlops_test_owner") -> Iterator[Database]:
    """The database with an owner that is no superuser. The connection remains that of the superuser."""
    with role(database, name, "LOGIN CREATEDB") as settings:
        database.connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(settings.database), sql.Identifier(name))
        )
        # Before PostgreSQL 15, and on a server that was upgraded from there, a superuser owns public.
        database.connection.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(name)))
        yield replace(database, settings=settings)


@contextmanager
def session(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A new session in autocommit."""
    with psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password,
        dbname=settings.database,
        autocommit=True,
    ) as connection:
        yield connection


def run_as(settings: Settings, *statements: str) -> None:
    """Run statements as a role, each in its own transaction."""
    with session(settings) as connection:
        for statement in statements:
            connection.execute(statement)


def may_create_in_public(database: Database) -> None:
    """Let every role create in public, as PostgreSQL did before 15."""
    database.connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
