"""Roles of one test: an owner that is no superuser, and a guest of the database."""

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
    """A role for the time of the block; the settings that connect as it. What it made in the database goes with it."""
    identifier = sql.Identifier(name)
    database.connection.execute(
        sql.SQL("CREATE ROLE {} {} PASSWORD {}").format(identifier, sql.SQL(attributes), sql.Literal(PASSWORD))
    )
    try:
        yield replace(database.settings, user=name, password=PASSWORD)
    finally:
        # A session that ends takes its temporary tables along: they must not go while they are given away.
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
        wait_until(lambda: not database.value(sessions, [name]), f"the sessions of {name} to end")
        for statement in ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}", "DROP ROLE {}"):
            database.connection.execute(sql.SQL(statement).format(identifier))


@contextmanager
def owner(database: Database, name: str = "mlops_test_owner") -> Iterator[Database]:
    """The database as an owner that is no superuser has it; the connection stays the superuser's."""
    with role(database, name, "LOGIN CREATEDB") as settings:
        database.connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(settings.database), sql.Identifier(name))
        )
        # What an upgraded server has, and every server before 15: public belongs to a superuser.
        database.connection.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(name)))
        yield replace(database, settings=settings)


@contextmanager
def session(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    """A session of its own, in autocommit."""
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
    """Run statements as that role, each in a transaction of its own."""
    with session(settings) as connection:
        for statement in statements:
            connection.execute(statement)


def may_create_in_public(database: Database) -> None:
    """Let everybody create in public, as PostgreSQL did before 15."""
    database.connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
