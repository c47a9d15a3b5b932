"""Makes the databases of a session of pytest: templates, each made once, and copies of them, each for one test."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from mlops_db.admin.retention import maintain
from mlops_db.demo.fill import fill
from mlops_db.errors import ConnectionFailedError, NotPermittedError, RefusedError
from mlops_db.server.connection import open_cursor
from mlops_db.server.drop_database import drop_database
from mlops_db.server.failures import quoted
from mlops_db.storage.db_manager import DatabaseManager, replace_shared_manager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

PREFIX = "mlops_pytest_"
OURS = re.compile(PREFIX + r"([0-9]{10})_[0-9a-f]{8}_(head|demo|[0-9]+)")  # a database of the team may have the prefix
NOW = "SELECT extract(epoch FROM now())::bigint"  # by the server's clock, because suites freeze ours
STALE_AFTER_S = 24 * 3600  # no session lasts longer
DEMO_DAYS, DEMO_SEED = 90, 1
STRATEGY_SINCE = 150000


class Databases:
    """The databases of one session, on one server. Nobody can connect to a template."""

    def __init__(self, server: Settings) -> None:
        """Drop what killed sessions have left more than a day ago.

        Args:
            server: with the database to create and drop others from.

        Raises:
            ConnectionFailedError: there is no connection.
        """
        self._server = server
        self._templates: list[str] = []
        self._numbers = count(1)
        self._in_use = False
        try:
            with open_cursor(server, autocommit=True) as cursor:
                now = cursor.value(NOW)
                _drop_stale(cursor, now)
                # Copied files are faster, but synchronized one by one, unless fsync is off.
                copies_files = (
                    cursor.connection.server_version >= STRATEGY_SINCE and cursor.value("SHOW fsync") == "off"
                )
                self._strategy = "STRATEGY file_copy" if copies_files else ""
        except ConnectionFailedError as error:
            raise ConnectionFailedError(
                error.message,
                hint="Check --postgresql-host and the other options of pytest-postgresql. Without a host, the tests "
                "start a server of their own.",
            ) from None
        self._prefix = f"{PREFIX}{now}_{secrets.token_hex(4)}"

    def make_template(self, name: str, *, source: str = "template0") -> str:
        """Create a template, as a copy of another one; returns its whole name.

        Raises:
            NotPermittedError: the role may not create databases.
        """
        template = f"{self._prefix}_{name}"
        self._templates.append(template)  # before it exists: Control-C may come in between
        with open_cursor(self._server, autocommit=True) as cursor:
            self._create(cursor, template, source, "ENCODING 'UTF8' ALLOW_CONNECTIONS false")
        return template

    def change_template(self, template: str, change: Callable[[Settings], object]) -> None:
        """Call a function on a template, with the environment's variables set to it."""
        settings = replace(self._server, database=template)
        self._allow_connections(template, allowed=True)
        with use_in_environment(settings):
            change(settings)
        self._allow_connections(template, allowed=False)

    @contextmanager
    def copy(self, template: str) -> Iterator[Settings]:
        """Copy a template for the block, with the environment's variables set to the copy.

        Raises:
            RefusedError: another copy is in use, and the environment can name one only.
        """
        if self._in_use:
            raise RefusedError(
                "a test has one database: it cannot use both mlops_db and mlops_db_demo",
                hint="Use mlops_db_demo alone; its settings are mlops_db_demo.settings.",
            )
        self._in_use = True
        settings = replace(self._server, database=f"{self._prefix}_{next(self._numbers)}")
        try:
            with open_cursor(self._server, autocommit=True) as cursor:
                self._create(cursor, settings.database, template)
            with use_in_environment(settings):
                yield settings
        finally:
            self._in_use = False
            with open_cursor(self._server, autocommit=True) as cursor:
                drop_database(cursor, settings.database)

    def drop_templates(self) -> None:
        """Drop the templates of this session."""
        with open_cursor(self._server, autocommit=True) as cursor:
            for template in self._templates:
                drop_database(cursor, template)

    def _create(self, cursor: SafeCursor, name: str, template: str, options: str = "") -> None:
        statement = sql.SQL(f"CREATE DATABASE {{}} TEMPLATE {{}} {self._strategy} {options}")
        try:
            cursor.execute_alone(statement.format(sql.Identifier(name), sql.Identifier(template)))
        except psycopg2.errors.InsufficientPrivilege:
            role = quoted(self._server.user)
            raise NotPermittedError(
                f"role {role} may not create databases on this server, and each test needs one",
                hint=f"Let a superuser run ALTER ROLE {role} CREATEDB, or name another role with --postgresql-user.",
            ) from None
        # A copy does not get the settings of its template.
        cursor.execute_alone(sql.SQL("ALTER DATABASE {} SET timezone TO 'UTC'").format(sql.Identifier(name)))

    def _allow_connections(self, template: str, *, allowed: bool) -> None:
        statement = sql.SQL(f"ALTER DATABASE {{}} ALLOW_CONNECTIONS {allowed}").format(sql.Identifier(template))
        with open_cursor(self._server, autocommit=True) as cursor:
            cursor.execute_alone(statement)
            if not allowed:  # a database that somebody uses cannot be copied
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = user",
                    (template,),
                )


def fill_demo(settings: Settings) -> None:
    """Fill a database with the demo, and move its metrics into the partitions of their months.

    Raises:
        RefusedError: it has rows.
    """
    with DatabaseManager(settings) as db:
        fill(db, days=DEMO_DAYS, seed=DEMO_SEED, progress=lambda _done, _total: None)
    maintain(settings, keep=None)


@contextmanager
def use_in_environment(settings: Settings) -> Iterator[None]:
    """Set the variables of the environment to a database for the block, and let `get_db_manager()` use it."""
    variables: dict[str, str | None] = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password or "",
        "MLOPS_DB_NAME": settings.database,
        # Empty ones win over those of a .env, too.
        **dict.fromkeys(("MLOPS_DATABASE_URL", "POSTGRES_PASSWORD_FILE", "MLOPS_OWNER_ROLE", "MLOPS_ENV"), ""),
        "PGHOSTADDR": settings.parameters["hostaddr"],
        "PGOPTIONS": settings.parameters["options"],
        "PGSERVICE": None,  # libpq takes a service's hostaddr before an empty PGHOSTADDR, and no empty service
    }
    before = {name: os.environ.get(name) for name in variables}
    _set_in_environment(variables)
    try:
        with replace_shared_manager():
            yield
    finally:
        _set_in_environment(before)


def _set_in_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _drop_stale(cursor: SafeCursor, now: int) -> None:
    cursor.execute(
        "SELECT datname FROM pg_database WHERE starts_with(datname, %s) AND pg_has_role(datdba, 'USAGE')", (PREFIX,)
    )
    for (name,) in cursor.fetchall():
        ours = OURS.fullmatch(name)
        if ours and now - int(ours[1]) > STALE_AFTER_S:
            with suppress(psycopg2.Error):  # another session drops it, too
                drop_database(cursor, name)
