"""Opens connections to the settings' database: psycopg2, as the owner role, with the pinned session settings."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    NotPermittedError,
    PoolerError,
    ServerUnreachableError,
    SettingsError,
    TooManyConnectionsError,
    printable,
)
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.failures import (
    first_line,
    is_limit,
    quoted,
    translate_connection_failures,
    translate_statement_failures,
)
from mlops_db.server.pins import MARK, NEWER_PINS, PINS, find_options, startup_options
from mlops_db.settings import EMBEDDED, Settings, read_password_file

_log = logging.getLogger("mlops_db.server")
_Connected = TypeVar("_Connected", bound=Connection)

CONNECT_TIMEOUT_S = 10
# The server counts a session until its process has ended, a little after the client closed the connection. So whoever
# closes the last connection that a limit allows may be refused the next one for a moment.
LIMIT_PATIENCE_S = 2
# Since PostgreSQL 16 a member can have the rights of a role without being allowed to become it.
SET_OPTION_SINCE = 160000


class _Connection(Connection):
    """A connection that its `with` block does not roll back once Control-C has ended a wait and closed it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.closed:
            super().__exit__(kind, error, traceback)


@contextmanager
def open_cursor(settings: Settings, *, application_name: str = "mlops-db", **session: Any) -> Iterator[SafeCursor]:
    """Connect as the owner role and lend a cursor for one block.

    A block that ends commits. A block that fails is rolled back.

    Args:
        settings: where to connect, and as whom.
        application_name: how the session is named in pg_stat_activity, unless the user named it.
        session: arguments of psycopg2's `set_session`, such as `readonly=True` or `autocommit=True`.

    Raises:
        ConnectionFailedError: no connection.
        MlopsDbError: the server refused a statement of the block.
    """
    with (
        closing(connect(settings, fallback_application_name=application_name)) as connection,
        translate_statement_failures(settings),
    ):
        connection.set_session(**session)
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            yield cursor
        connection.commit()


def resolve_embedded(settings: Settings) -> Settings:
    """Start the embedded server if that is the host; returns settings with its socket and port."""
    if settings.host != EMBEDDED:
        return settings
    from mlops_db.server import embedded  # noqa: PLC0415  (its package stays out of every other run)

    return embedded.start(settings)


def connect(
    settings: Settings, *, pins: Mapping[str, str] = PINS, through_pooler: bool = True, **parameters: Any
) -> Connection:
    """Open a connection for a command, as the owner role; starts the embedded server if that is the host.

    The options of the URL, the service file and PGOPTIONS apply, except those that `pins` overrides.

    Args:
        settings: where to connect, and as whom.
        pins: settings of the session, which win over all others.
        through_pooler: whether to connect without the pins through a pooler that takes no options. With an owner role
            that is refused.
        parameters: as `open_connection`.

    Raises:
        ConnectionFailedError: no connection; the subclass says why.
        NotPermittedError: the owner role, or one that PGOPTIONS names, does not exist, or this login may not become it.
        PoolerError: a pooler takes no options.
    """
    role = {"role": settings.owner_role} if settings.owner_role else {}
    try:
        connection = open_connection(settings, options=startup_options({**pins, **role, MARK: "on"}), **parameters)
    except PoolerError:
        if role or not through_pooler:
            raise
        return open_connection(settings, **parameters)
    except (AuthenticationFailedError, ServerUnreachableError, TooManyConnectionsError):
        raise  # the role is not the reason, and a second attempt could wait once more or lock the account
    except (ConnectionFailedError, NotPermittedError):
        if role:
            _refuse_owner_role(settings, parameters)
        raise
    # PGTZ and PGDATESTYLE reach the server beside the options, and win over them.
    later = {name: pins[name] for name in ("timezone", "DateStyle") if name in pins}
    later |= {name: value for name, (value, since) in NEWER_PINS.items() if connection.server_version >= since}
    connection.autocommit = True
    with translate_statement_failures(settings), connection.cursor(cursor_factory=SafeCursor) as cursor:
        # Only with our mark: a pooler that dropped our options would keep the settings for other clients.
        cursor.execute(
            "SELECT pg_catalog.set_config(pin.name, pin.value, false) FROM pg_catalog.json_each_text(%s) AS pin"
            f" (name, value) WHERE pg_catalog.current_setting('{MARK}', true) = 'on'",
            (json.dumps(later),),
        )
        pinned = cursor.rowcount > 0
    connection.autocommit = False
    if role and not pinned:
        connection.close()
        raise PoolerError
    return connection


def _refuse_owner_role(settings: Settings, parameters: Mapping[str, Any]) -> None:
    """Refuse an owner role that keeps the connection from being made.

    Raises:
        NotPermittedError: there is no such role, or this login may not become it.
        ConnectionFailedError: there is no connection without the owner role either.
    """
    with closing(open_connection(settings, **parameters)) as connection, connection.cursor() as cursor:
        privilege = "SET" if connection.server_version >= SET_OPTION_SINCE else "MEMBER"
        cursor.execute(
            "SELECT pg_catalog.pg_has_role(session_user, oid, %s), pg_catalog.pg_has_role(session_user, oid, 'MEMBER')"
            " FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) %s::pg_catalog.name",
            (privilege, settings.owner_role),
        )
        found = cursor.fetchone()
    owner, login = quoted(settings.owner_role or ""), quoted(settings.user)
    if found is None:
        raise NotPermittedError(
            f"MLOPS_OWNER_ROLE: there is no role {owner} on {settings.target.rpartition('/')[0]}",
            hint=f"Let a superuser run CREATE ROLE {owner} NOLOGIN CREATEDB; GRANT {owner} TO {login};",
        )
    may_be_set, member = found
    if not may_be_set:
        raise NotPermittedError(
            f"MLOPS_OWNER_ROLE: role {login} may not become {owner}",
            hint=f"Let a superuser run GRANT {owner} TO {login}{' WITH SET TRUE' if member else ''};",
        )


def open_connection(settings: Settings, *, options: str = "", **parameters: Any) -> Connection:
    """Open a psycopg2 connection to the settings' database; starts the embedded server if that is the host.

    `parameters` are libpq's connection parameters (manual, 34.1.2) and win over the settings'; `options` come after
    those of the URL, the service file or PGOPTIONS. An address that does not answer is given up after 10 seconds, or
    after PGCONNECT_TIMEOUT or the URL's timeout; a limit of connections that stays reached, after two seconds.

    Raises:
        ConnectionFailedError: no connection; the subclass says why.
        NotPermittedError: PGOPTIONS names a role that does not exist, or that this login may not become.
        PoolerError: a pooler takes no options.
    """
    given = connection_parameters(settings, options=options, **parameters)
    if "PGCONNECT_TIMEOUT" not in os.environ:
        given.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    with translate_connection_failures(settings, given["dbname"]):
        return open_below_limits(partial(psycopg2.connect, **given), time.monotonic() + LIMIT_PATIENCE_S)  # type: ignore[no-any-return]


def open_below_limits(connect: Callable[[], _Connected], until: float) -> _Connected:
    """Open a connection; while a limit of connections is reached, try again until then, by the monotonic clock."""
    limit: psycopg2.OperationalError | None = None
    while True:
        try:
            return connect()
        except TimeoutError:
            raise limit or TimeoutError from None
        except psycopg2.OperationalError as error:
            if not is_limit(str(error)) or time.monotonic() > until:
                raise
            if limit is None:
                _log.info(
                    "a limit of connections is reached, so connecting is tried again: %s",
                    printable(first_line(str(error))),
                )
            limit = error
        time.sleep(0.05)


def connection_parameters(settings: Settings, *, options: str = "", **parameters: Any) -> dict[str, Any]:
    """The arguments for `psycopg2.connect`. This function takes the same as `open_connection`.

    Raises:
        ConnectionFailedError: the password's file cannot be read.
    """
    where = resolve_embedded(settings)
    given: dict[str, Any] = {
        "fallback_application_name": "mlops-db",
        "connection_factory": _Connection,
        **where.parameters,
        "client_encoding": "utf8",  # even if the URL has another one: LATIN1 cannot hold all names and texts
        "host": where.host,
        "port": where.port,
        "user": where.user,
        "dbname": where.database,
        "options": f"{find_options(where.parameters)} {options}".strip(),
        **parameters,
    }
    password = read_password(where)
    return given if password is None else {**given, "password": password}


def read_password(settings: Settings) -> str | None:
    """Read the password for a new connection, from its file if there is one.

    Raises:
        ConnectionFailedError: the file cannot be read or holds no password, such as while a rotation writes it.
    """
    if settings.password_file is None:
        return settings.password
    try:
        return read_password_file(settings.password_file)
    except SettingsError as error:
        raise ConnectionFailedError(f"{settings.target}: {error}", hint=error.hint) from None
