"""Runs on a connection that a program hands in: checks that it can be used, and leaves it as it was."""

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

_HINT = "Create it with create_engine('postgresql+psycopg2://...'), or hand in none: the run connects by itself."
# Options of a program's statements that a run cannot use, and the run's own.
_OPTIONS = {"schema_translate_map": None, "stream_results": False, "yield_per": None, "no_parameters": False}
# The same for its transactions, as psycopg2 keeps them.
_TRANSACTIONS = {"autocommit": False, "isolation_level": psycopg2.extensions.ISOLATION_LEVEL_READ_COMMITTED}


@contextmanager
def use_callers_connection(callers: object, pins: Mapping[str, str]) -> Iterator[Connection]:
    """Use a program's connection in the block, and leave it as it was.

    Args:
        callers: a Connection or an Engine of SQLAlchemy on psycopg2. From an Engine the run takes a connection and
            gives it back. A Connection that is in a transaction stays in it.
        pins: the server's settings for the block.

    Raises:
        RefusedError: a run cannot use it; the message says why.
        ConnectionFailedError: the engine does not connect.
        NotPermittedError: the connection cannot become the owner role.
    """
    if isinstance(callers, Engine):
        _require_psycopg2(callers.dialect)
        with _connect(callers) as connection, _prepare(connection, pins):
            yield connection
    elif isinstance(callers, Connection):
        with _prepare(callers, pins):
            yield callers
    else:
        raise _wrong_class(callers)


def settings_of_connection(connection: Connection, settings: Settings) -> Settings:
    """The settings with the address of the connection, which can be another than theirs."""
    driver: Any = connection.connection.dbapi_connection
    info = driver.info
    return replace(settings, host=info.host, port=info.port, user=info.user, database=info.dbname)


def _wrong_class(callers: object) -> RefusedError:
    """The message names the class only: the value itself can be a URL with a password."""
    from sqlalchemy.orm import Session, scoped_session  # noqa: PLC0415  (only a refused run needs it)

    kind = type(callers)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return RefusedError(
        f"a run needs SQLAlchemy's Connection or Engine on psycopg2, and was given an object of the class {name}",
        hint="Hand in its connection()." if isinstance(callers, Session | scoped_session) else _HINT,
    )


def _connect(engine: Engine) -> Connection:
    try:
        return engine.connect()
    except PoolTimeoutError:
        raise RefusedError(
            "the engine that was handed in has no connection left in its pool",
            hint="Hand in the connection that is in use, or another engine.",
        ) from None
    except DBAPIError as error:
        raise ConnectionFailedError(
            f"the engine that was handed in does not connect: {str(error.orig).strip().splitlines()[-1].strip()}",
            hint="Check its URL, and that its server runs.",
        ) from error


def _require_psycopg2(dialect: Dialect) -> None:
    if dialect.driver != "psycopg2":
        raise RefusedError(f"a run needs a connection of psycopg2, and was given one of {dialect.driver}", hint=_HINT)


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
def _prepare(connection: Connection, pins: Mapping[str, str]) -> Iterator[None]:
    """Give the connection what a run relies on in the block, and reset it afterwards."""
    _require_usable(connection)
    dialect = connection.dialect
    schema = dialect.default_schema_name
    with _run_defaults(connection), _pin_settings(connection, pins):
        dialect.default_schema_name = (
            "public"  # for a revision that inspects tables: the search path may not begin with it
        )
        try:
            yield
        finally:
            dialect.default_schema_name = schema


@contextmanager
def _run_defaults(connection: Connection) -> Iterator[None]:
    """Replace the caller's options of statements and, unless its transaction has begun, of transactions."""
    driver: Any = connection.connection.dbapi_connection
    options = connection.get_execution_options()
    level = options.get("isolation_level")
    options_before = {name: options.get(name, default) for name, default in _OPTIONS.items()}
    transactions = {} if connection.in_transaction() else _TRANSACTIONS
    transactions_before = {name: getattr(driver, name) for name in transactions}
    connection.execution_options(**_OPTIONS)
    for name, value in transactions.items():
        setattr(driver, name, value)
    try:
        yield
    finally:
        if transactions and not (connection.closed or connection.invalidated or driver.closed):
            if level is not None:
                connection.execution_options(isolation_level=level)  # Alembic's autocommit_block sets it, too
            for name, value in transactions_before.items():
                setattr(driver, name, value)
        if not connection.closed:
            connection.execution_options(**options_before)


@contextmanager
def _pin_settings(connection: Connection, pins: Mapping[str, str]) -> Iterator[None]:
    callers_transaction = connection.in_transaction()
    driver: Any = connection.connection.dbapi_connection
    newer = {name: value for name, (value, since) in NEWER_PINS.items() if driver.server_version >= since}
    pins = {**pins, **newer}

    def set_all(values: Mapping[str, str]) -> None:
        for name, value in values.items():
            # In the caller's transaction, a setting ends with it. But a revision sets search_path for the session, too.
            local = callers_transaction and name != "search_path"
            try:
                connection.exec_driver_sql(
                    "SELECT pg_catalog.set_config(%(name)s, %(value)s, %(local)s)",
                    {"name": name, "value": value, "local": local},
                )
            except DBAPIError as error:
                if name != "role":
                    raise
                role, login = quoted(value), quoted(driver.info.user)
                raise NotPermittedError(
                    f"MLOPS_OWNER_ROLE: the connection that was handed in cannot become {role}:"
                    f" {first_line(str(error.orig))}",
                    hint=f"Let a superuser create the role if it does not exist, and run GRANT {role} TO {login};",
                ) from None
        if not callers_transaction:
            connection.commit()

    query = "SELECT pg_catalog.current_setting(%(name)s, true)"
    before = {name: connection.exec_driver_sql(query, {"name": name}).scalar() or "" for name in pins}
    try:
        set_all(pins)
        yield
    except BaseException:
        if not callers_transaction and not connection.invalidated:  # otherwise a rollback resets the settings
            with suppress(SQLAlchemyError):  # it broke
                connection.rollback()
                set_all(before)
        raise
    set_all(before)
