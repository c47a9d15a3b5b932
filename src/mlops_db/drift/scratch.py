"""Creates and drops scratch databases, on the server of the database that is compared."""

from __future__ import annotations

import secrets
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from mlops_db.drift.catalogue import read_catalogue, reading
from mlops_db.errors import ConnectionFailedError, NotPermittedError, printable
from mlops_db.migration.commands import upgrade
from mlops_db.server.connection import open_cursor
from mlops_db.server.drop_database import drop_database
from mlops_db.server.failures import first_line, quoted
from mlops_db.terminal import print_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.drift.catalogue import Catalogue
    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

SCRATCH_PREFIX = "mlops_scratch_"
STALE_AFTER_S = 3600

# Nobody may connect before all but the owner and the connected role (SET ROLE) are locked out. The locale C goes with
# UTF8, which may not be the server's own encoding.
_CREATE = (
    "CREATE DATABASE {} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 ALLOW_CONNECTIONS false",
    "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {} TO SESSION_USER",
    "ALTER DATABASE {} WITH ALLOW_CONNECTIONS true",
)


def catalogue_of(settings: Settings, revision: str) -> Catalogue:
    """The catalogue that the revisions up to `revision` make, on the settings' server.

    Raises:
        NotPermittedError: the role may not create databases.
    """
    with scratch_database(settings) as scratch:
        upgrade(scratch, revision)
        with reading(scratch) as cursor:
            return read_catalogue(cursor)


@contextmanager
def scratch_database(settings: Settings) -> Iterator[Settings]:
    """Create an empty database on the settings' server for the block; yields the settings that reach it.

    If it cannot be dropped, a line on standard error warns of that, and the block's result stands. Databases that
    earlier blocks left are dropped after an hour.

    Raises:
        NotPermittedError: the role may not create databases.
    """
    name = f"{SCRATCH_PREFIX}{int(time.time())}_{secrets.token_hex(4)}"
    # In the database itself, the one that this role is known to reach.
    with open_cursor(settings, autocommit=True) as cursor:
        _drop_stale(cursor)
        _create(cursor, name, settings)
    try:
        yield replace(settings, database=name, environment="development")  # nothing in it is worth protecting
    finally:
        # On another connection: a server that was restarted meanwhile has ended the first one.
        try:
            with open_cursor(settings, autocommit=True) as cursor:
                _drop(cursor, name)
        except ConnectionFailedError as error:
            _warn(name, str(error))


def _create(cursor: SafeCursor, name: str, settings: Settings) -> None:
    create, *rest = (sql.SQL(statement).format(sql.Identifier(name)) for statement in _CREATE)
    try:
        cursor.execute_alone(create)
        try:
            for statement in rest:
                cursor.execute_alone(statement)
        except BaseException:
            _drop(cursor, name)
            raise
    except psycopg2.errors.InsufficientPrivilege:
        cursor.execute("SELECT current_user")  # a role setting may be in force
        (role,) = cursor.fetchone() or (settings.user,)
        raise NotPermittedError(
            f"role {quoted(role)} may not create databases, and the comparison needs a scratch database",
            hint=f"Let a superuser run ALTER ROLE {quoted(role)} CREATEDB; or, in a checkout, run `mlops-db docs`: "
            "it writes the snapshot, and then no scratch database is needed.",
        ) from None


def _drop(cursor: SafeCursor, name: str) -> None:
    try:
        drop_database(cursor, name)
    except psycopg2.Error as error:
        _warn(name, first_line(str(error)))


def _drop_stale(cursor: SafeCursor) -> None:
    cursor.execute(
        "SELECT datname FROM pg_database AS d WHERE starts_with(datname, %s) AND pg_has_role(datdba, 'USAGE')"
        " AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid AND a.usesysid IS NOT NULL)",
        (SCRATCH_PREFIX,),
    )
    for (name,) in cursor.fetchall():
        begun = name.removeprefix(SCRATCH_PREFIX).partition("_")[0]
        if begun.isdigit() and time.time() - int(begun) > STALE_AFTER_S:
            _drop(cursor, name)


def _warn(name: str, reason: str) -> None:
    if sys.stderr is not None:  # it is None where the caller has closed it
        warning = f"warning: scratch database {name} stays: {reason}; the first one made after an hour drops it"
        print_line(printable(warning), file=sys.stderr)
