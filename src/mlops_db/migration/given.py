"""Connections that a program hands in: which of them a run can use, and that they come back as they were."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from mlops_db.errors import ConnectionFailedError, NotPermittedError, RefusedError
from mlops_db.server.failures import first_line, quoted
from mlops_db.server.pins import NEWER_PINS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Dialect

    from mlops_db.settings import Settings

_HINT = "Make it with create_engine('postgresql+psycopg2://...'), or hand in none: the run connects by itself."
# What a program may have said about its statements, and what a run's need instead.
_OPTIONS = {"schema_translate_map": None, "stream_results": False, "yield_per": None, "no_parameters": False}
# The same of its transactions, as psycopg2 keeps it.
_TRANSACTIONS = {"autocommit": False, "isolation_level": psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED}


@contextmanager
def given_connection(given: object, pins: Mapping[str, str]) -> Iterator[Connection]:
    """Use what a program handed in, and leave it as it was.

    Args:
        given: a Connection or an Engine of SQLAlchemy's on psycopg2. From an Engine the run takes a connection of its
            own, and gives it back. A Connection in a transaction of its caller's stays in that.
        pins: the settings of the server that hold meanwhile.

    Raises:
        RefusedError: a run cannot use it; the message says why.
        ConnectionFailedError: the engine does not connect.
        NotPermittedError: it does not become the owner role.
    """
    if isinstance(given, Engine):
        _require_psycopg2(given.dialect)
        with _connected(given) as connection, _pinned(connection, pins):
            yield connection
    elif isinstance(given, Connection):
        with _pinned(given, pins):
            yield given
    else:
        raise _no_connection(given)


def reached(connection: Connection, settings: Settings) -> Settings:
    """The settings as the connection has them: a program's can lead elsewhere than they do."""
    driver: Any = connection.connection.dbapi_connection
    info = driver.info
    return replace(settings, host=info.host, port=info.port, user=info.user, database=info.dbname)


def _no_connection(given: object) -> RefusedError:
    """Told by its class: the value itself can be a URL with a password."""
    from sqlalchemy.orm import Session, scoped_session  # noqa: PLC0415  (no run that goes well needs it)

    kind = type(given)
    said = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return RefusedError(
        f"a run needs SQLAlchemy's Connection or Engine on psycopg2, and was given an object of the class {said}",
        hint="Hand in its connection()." if isinstance(given, Session | scoped_session) else _HINT,
    )


def _connected(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except PoolTimeoutError:
        raise RefusedError(
            "the engine that was handed in has no connection left in its pool",
            hint="Hand in the connection that is in use, or an engine of the run's own.",
        ) from None
    except DBAPIError as error:
        raise ConnectionFailedError(
            f"the engine that was handed in does not connect: {str(error.orig).strip().splitlines()[-1].strip()}",
            hint="Look at its URL, and whether its server runs.",
        ) from error


def _not_the_owner(role: str, login: str, error: DBAPIError) -> NotPermittedError:
    return NotPermittedError(
        f"MLOPS_OWNER_ROLE: the connection that was handed in does not become {quoted(role)}:"
        f" {first_line(str(error.orig))}",
        hint=f"Let a superuser create the role if there is none, and run GRANT {quoted(role)} TO {quoted(login)};",
    )


def _require_psycopg2(dialect: Dialect) -> None:
    if dialect.driver != "psycopg2":
        raise RefusedError(
            f"a run needs a connection of psycopg2's, and was given one of {dialect.driver}'s", hint=_HINT
        )


def _require_usable(connection: Connection) -> None:
    _require_psycopg2(connection.dialect)
    if connection.closed or connection.invalidated:
        raise RefusedError(
            f"the connection that was handed in {'is closed' if connection.closed else 'broke'}",
            hint="Hand in one that is open, or its engine.",
        )
    driver: Any = connection.connection.dbapi_connection
    status = driver.info.transaction_status
    transaction = connection.get_nested_transaction() or connection.get_transaction()
    if status == psycopg2.extensions.TRANSACTION_STATUS_INERROR or (transaction and not transaction.is_active):
        raise RefusedError(
            "the transaction of the connection that was handed in has failed", hint="Roll it back before the run."
        )
    if transaction is None and status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
        raise RefusedError(
            "the connection that was handed in is in a transaction that SQLAlchemy does not know of",
            hint="End it before the run, or begin it with the connection's begin().",
        )
    if transaction is not None and driver.autocommit:
        raise RefusedError(
            "the connection that was handed in is in a transaction, and commits each statement by itself (AUTOCOMMIT)",
            hint="Hand it in before its begin(), or without AUTOCOMMIT.",
        )


@contextmanager
def _pinned(connection: Connection, pins: Mapping[str, str]) -> Iterator[None]:
    """Pin what a run relies on for the time that the connection is its, and set it back."""
    _require_usable(connection)
    dialect = connection.dialect
    schema = dialect.default_schema_name
    with _options(connection), _transactions(connection), _settings(connection, pins):
        dialect.default_schema_name = "public"  # what a revision that inspects means, whatever the path is
        try:
            yield
        finally:
            dialect.default_schema_name = schema


@contextmanager
def _options(connection: Connection) -> Iterator[None]:
    options = connection.get_execution_options()
    before = {name: options.get(name, default) for name, default in _OPTIONS.items()}
    connection.execution_options(**_OPTIONS)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execution_options(**before)


@contextmanager
def _transactions(connection: Connection) -> Iterator[None]:
    """Let the run's transactions be its own; that of its caller's has begun already."""
    if connection.in_transaction():
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    level = connection.get_execution_options().get("isolation_level")
    before = {name: getattr(driver, name) for name in _TRANSACTIONS}
    for name, value in _TRANSACTIONS.items():
        setattr(driver, name, value)
    try:
        yield
    finally:
        if not (connection.closed or connection.invalidated or driver.closed):
            if level is not None:
                connection.execution_options(isolation_level=level)  # Alembic's autocommit_block sets it, too
            for name, value in before.items():
                setattr(driver, name, value)


@contextmanager
def _settings(connection: Connection, pins: Mapping[str, str]) -> Iterator[None]:
    callers_transaction = connection.in_transaction()
    driver: Any = connection.connection.dbapi_connection
    newer = {name: value for name, (value, since) in NEWER_PINS.items() if driver.server_version >= since}
    pins = {**pins, **newer}

    def set_all(values: Mapping[str, str]) -> None:
        # In its caller's transaction, what the caller has set for that alone is to end with it; but of search_path a
        # revision, too, sets what does not.
        for name, value in values.items():
            local = callers_transaction and name != "search_path"
            try:
                connection.exec_driver_sql(
                    "SELECT pg_catalog.set_config(%(name)s, %(value)s, %(local)s)",
                    {"name": name, "value": value, "local": local},
                )
            except DBAPIError as error:
                if name != "role":
                    raise
                raise _not_the_owner(value, driver.info.user, error) from None
        if not callers_transaction:
            connection.commit()

    asked = "SELECT pg_catalog.current_setting(%(name)s, true)"
    before = {name: connection.exec_driver_sql(asked, {"name": name}).scalar() or "" for name in pins}
    try:
        set_all(pins)
        yield
    except BaseException:
        if not callers_transaction and not connection.invalidated:  # otherwise a rollback takes the settings back
            with suppress(SQLAlchemyError):  # it broke
                connection.rollback()
                set_all(before)
        raise
    set_all(before)
