"""One way to connect, for every part of the project: psycopg2 with the settings, and failures told in our words."""

import json
import os
import select
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from types import TracebackType
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    DatabaseMissingError,
    MlopsDbError,
    NotPermittedError,
    PoolerError,
    RefusedError,
    ServerUnreachableError,
    SettingsError,
    StatementFailedError,
    alembic,
)
from mlops_db.server.driver_types import CASTERS, adapted
from mlops_db.server.guests import SAFE_PATH
from mlops_db.server.pins import MARK, NEWER_PINS, PINS, given_options, startup_options
from mlops_db.settings import EMBEDDED, Settings, password_in

CONNECT_TIMEOUT_S = 10
# Since then a member may have been granted the rights of a role without being able to become it.
SET_OPTION_SINCE = 160000


class SafeCursor(Cursor):
    """A cursor for statements of our own: each runs on the safe search path, whatever the session's is.

    The path is set with the statement, in one message and for its transaction: that costs no round trip, and behind a
    transaction pooler it does not stay with somebody else's session. Values are written and read in psycopg2's own way,
    whatever others have registered.
    """

    def __init__(self, *args: Any, **parameters: Any) -> None:
        """Make the cursor."""
        super().__init__(*args, **parameters)
        self.string_types = CASTERS

    def execute(self, query: str | bytes | sql.Composable, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
        """Run a statement; one that cannot share its message, such as CREATE DATABASE, goes to `execute_alone`."""
        if self.connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_INERROR:
            text = query.as_string(self) if isinstance(query, sql.Composable) else query
            query = f"SET LOCAL search_path = {SAFE_PATH}; {text if isinstance(text, str) else text.decode()}"
        super().execute(query, adapted(vars))

    def mogrify(self, query: str | bytes | sql.Composable, vars: Any = None) -> bytes:  # noqa: A002  (the same)
        """The statement with its parameters in it."""
        return super().mogrify(query, adapted(vars))

    def copy_out(self, query: str, vars: Any, file: Any) -> None:  # noqa: A002  (psycopg2's name)
        """COPY the rows of a query into a file, in the binary format."""
        path = f"SET LOCAL search_path = {SAFE_PATH}; ".encode()
        self.copy_expert(path + b"COPY (" + self.mogrify(query, vars) + b") TO STDOUT (FORMAT binary)", file)

    def execute_alone(self, query: sql.Composable) -> None:
        """Run a statement that names objects, and no operator or function."""
        super().execute(query)


class _Connection(Connection):
    """psycopg2's, which it closes itself when Control-C ends a wait: then there is nothing to roll back."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.closed:
            super().__exit__(kind, error, traceback)


def located(settings: Settings) -> Settings:
    """The settings with the host `embedded` replaced by the running embedded server's socket and port."""
    if settings.host != EMBEDDED:
        return settings
    from mlops_db.server import embedded  # noqa: PLC0415  (its package stays out of every other run)

    return embedded.started(settings)


def connect(
    settings: Settings, *, pins: Mapping[str, str] = PINS, through_pooler: bool = True, **parameters: Any
) -> Connection:
    """Open a connection for a command of ours, as the owner role; starts the embedded server if that is the host.

    The options of the URL, of the service file or of PGOPTIONS hold, but for what is pinned.

    Args:
        settings: where to connect, and as whom.
        pins: settings of the server that hold for this session, over those of everybody else.
        through_pooler: whether it will do without the pins behind a pooler that takes no options; never without the
            owner role.
        parameters: as `open_connection`.

    Raises:
        ConnectionFailedError: no connection; the subclass says why.
        NotPermittedError: the owner role, or one that PGOPTIONS names, is none or not this login's to become.
        PoolerError: a pooler takes no options.
    """
    role = {"role": settings.owner_role} if settings.owner_role else {}
    try:
        connection = open_connection(settings, options=startup_options({**pins, **role, MARK: "on"}), **parameters)
    except PoolerError:
        if role or not through_pooler:
            raise
        return open_connection(settings, **parameters)
    except (AuthenticationFailedError, ServerUnreachableError):
        raise  # not for the role, and a second attempt would cost a wait, or a further step to a locked account
    except (ConnectionFailedError, NotPermittedError):
        if role:
            _refuse_owner_role(settings, parameters)
        raise
    # PGTZ and PGDATESTYLE reach the server beside the options, and win over them.
    later = {name: pins[name] for name in ("timezone", "DateStyle") if name in pins}
    later |= {name: value for name, (value, since) in NEWER_PINS.items() if connection.server_version >= since}
    try:
        connection.autocommit = True
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            # Not behind a pooler that dropped our options: there it would stay with somebody else's session.
            cursor.execute(
                "SELECT pg_catalog.set_config(pin.name, pin.value, false) FROM pg_catalog.json_each_text(%s) AS pin"
                f" (name, value) WHERE pg_catalog.current_setting('{MARK}', true) = 'on'",
                (json.dumps(later),),
            )
            pinned = cursor.rowcount > 0
        connection.autocommit = False
    except psycopg2.Error as error:
        raise explained_statement_failure(error, settings) from None
    if role and not pinned:
        connection.close()
        raise PoolerError
    return connection


def _refuse_owner_role(settings: Settings, parameters: Mapping[str, Any]) -> None:
    """Say what is wrong with the owner role, if it is that which keeps a connection from being made.

    Raises:
        NotPermittedError: there is no such role, or it is not this login's to become.
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
    those that the URL, the service file or PGOPTIONS give. Unless PGCONNECT_TIMEOUT or the URL say otherwise, an
    address that does not answer is given up after 10 seconds.

    Raises:
        ConnectionFailedError: no connection; the subclass says why.
        NotPermittedError: PGOPTIONS names a role that is none, or not this login's to become.
        PoolerError: a pooler takes no options.
    """
    given = connection_parameters(settings, options=options, **parameters)
    if "PGCONNECT_TIMEOUT" not in os.environ:
        given.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    with connection_failures_told(settings, given["dbname"]):
        return psycopg2.connect(**given)  # type: ignore[no-any-return]


@contextmanager
def connection_failures_told(settings: Settings, database: str) -> Iterator[None]:
    """Tell in our words why there is no connection to that database.

    Raises:
        ConnectionFailedError: the subclass says why.
        NotPermittedError: PGOPTIONS names a role that is none, or not this login's to become.
        PoolerError: a pooler takes no options.
    """
    try:
        yield
    except psycopg2.OperationalError as error:
        raise _explained(error, settings, database) from None
    except UnicodeError:  # psycopg2 cannot read the server's refusal, which quotes what it was given
        raise ConnectionFailedError(
            f"{settings.target}: the server refused what is not UTF-8",
            hint="Look at libpq's variables (PGOPTIONS, PGTZ and others) and the URL; the server's log has its words.",
        ) from None


def connection_parameters(settings: Settings, *, options: str = "", **parameters: Any) -> dict[str, Any]:
    """What psycopg2 connects with; the arguments are those of `open_connection`.

    Raises:
        ConnectionFailedError: the password's file cannot be read.
    """
    where = located(settings)
    given: dict[str, Any] = {
        "fallback_application_name": "mlops-db",
        "connection_factory": _Connection,
        **where.parameters,
        "client_encoding": "utf8",  # whatever the URL says: LATIN1 cannot say all names and texts
        "host": where.host,
        "port": where.port,
        "user": where.user,
        "dbname": where.database,
        "options": f"{given_options(where.parameters)} {options}".strip(),
        **parameters,
    }
    password = current_password(where)
    return given if password is None else {**given, "password": password}


def current_password(settings: Settings) -> str | None:
    """The password for a new connection: what its file holds by now, if it is in one.

    Raises:
        ConnectionFailedError: the file cannot be read, or holds none; a rotation may be writing it just now.
    """
    if settings.password_file is None:
        return settings.password
    try:
        return password_in(settings.password_file)
    except SettingsError as error:
        raise ConnectionFailedError(f"{settings.target}: {error}", hint=error.hint) from None


def quoted(name: str) -> str:
    """The name as SQL has it, for a statement that somebody is to run."""
    return '"' + name.replace('"', '""') + '"'


def wait_interruptibly() -> None:
    """Let Control-C and SIGTERM through while a statement waits: libpq's own wait sees them when it is over.

    For command lines only, since it holds for every psycopg2 connection of the process.
    """
    psycopg2.extensions.set_wait_callback(_wait)


@contextmanager
def waiting_by_itself() -> Iterator[None]:
    """Let psycopg2 wait in its own way within the block, for connections opened in it: otherwise it cannot COPY."""
    callback = psycopg2.extensions.get_wait_callback()
    psycopg2.extensions.set_wait_callback(None)
    try:
        yield
    finally:
        psycopg2.extensions.set_wait_callback(callback)


def _wait(connection: Connection) -> None:
    """psycopg2's `extras.wait_select`, but for Control-C: that one goes on if the statement is just about done."""
    try:
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            reading = [connection.fileno()] if state == psycopg2.extensions.POLL_READ else []
            writing = [connection.fileno()] if state == psycopg2.extensions.POLL_WRITE else []
            select.select(reading, writing, [])
    except KeyboardInterrupt:
        with suppress(psycopg2.Error):
            connection.cancel()
        raise


_HINTS: tuple[tuple[type[psycopg2.Error] | tuple[type[psycopg2.Error], ...], str], ...] = (
    (
        psycopg2.errors.ReadOnlySqlTransaction,
        "This server or role takes no writes: connect to the primary, as a role that may write.",
    ),
    (
        (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected),
        "Others use it at the moment: let them finish, then run it again.",
    ),
    (
        psycopg2.errors.DependentObjectsStillExist,
        "Drop what depends on it first, and create that again afterwards.",
    ),
    (
        psycopg2.errors.FeatureNotSupported,
        "What it names stands in the way; a column of a table's row type, say, needs another type. Then run it again.",
    ),
    (
        psycopg2.errors.UndefinedTable,
        f"Run `{alembic('upgrade head')}`; if nothing is left to do, `mlops-db status` shows what is missing.",
    ),
    (
        psycopg2.errors.QueryCanceled,
        "Needs it that long? -x statement-timeout=10min. Interrupted? Run it again: it goes on where it stopped.",
    ),
)


def explained_statement_failure(error: psycopg2.Error, settings: Settings) -> MlopsDbError:
    """What to tell a user whose statement the server refused; what RAISE of our own functions says is ours to say."""
    line = first_line(error.pgerror or str(error))
    if error.diag.message_detail:
        line = f"{line} ({'; '.join(error.diag.message_detail.splitlines())})"
    if error.diag.source_function == "exec_stmt_raise" and error.diag.message_hint:
        return RefusedError(line, hint=error.diag.message_hint)
    if isinstance(error, psycopg2.errors.InsufficientPrivilege) and "row-level security" in line:
        return NotPermittedError(
            line,
            hint="A policy hides rows from this role, and all of them are needed: ALTER TABLE ... NO FORCE ROW LEVEL "
            "SECURITY for that time, or a role with BYPASSRLS.",
        )
    if isinstance(error, psycopg2.errors.InsufficientPrivilege):
        return NotPermittedError(
            line,
            hint="Connect as the owner of what it names, or name that role in MLOPS_OWNER_ROLE; or let it GRANT the "
            f"privilege to {quoted(settings.owner_role or settings.user)}. In a copy that lost its owners, let whoever "
            "restored it run `mlops-db check --sql`.",
        )
    for refusals, hint in _HINTS:
        if isinstance(error, refusals):
            return StatementFailedError(line, hint=hint)
    if error.pgcode is None or isinstance(error, psycopg2.errors.AdminShutdown):
        return StatementFailedError(
            f"the connection to {settings.target} broke: {line}",
            hint="Look at the server's log, then run the same command again.",
        )
    return StatementFailedError(f"{line} (SQLSTATE {error.pgcode})", hint="The server's log has the statement.")


# How libpq begins where it has not even tried to connect.
_LIBPQ_REFUSES = (
    "invalid ",
    "could not match ",
    "definition of service",
    "service file",
    "syntax error in service file",
)


# What libpq says of a server that is not what target_session_attrs asks for.
_ANOTHER_KIND = (
    "session is read-only",
    "session is not read-only",
    "in hot standby mode",
    "make a writable connection",
)


def _explained(error: psycopg2.OperationalError, settings: Settings, database: str) -> ConnectionFailedError:
    """Tell a failed connection in our words.

    psycopg2 gives no SQLSTATE for it, so libpq's English text decides. A server that speaks another language ends in
    the last, general case, which quotes what it said.
    """
    text = str(error)
    said = _last_line(text)
    if "could not translate host name" in text and len(settings.addresses) == 1:
        return ServerUnreachableError(
            f"host name {settings.host!r} cannot be resolved",
            hint="Set POSTGRES_HOST to your server, or to `embedded` for one that pip installed.",
        )
    if "database" in said and "does not exist" in said and "role" not in said:
        return DatabaseMissingError(
            f'database "{database}" does not exist on {settings.target.rpartition("/")[0]}',
            hint="Run `mlops-db create`.",
        )
    if "set role" in said or ("role" in said and "does not exist" in said and f'"{settings.user}"' not in said):
        raise NotPermittedError(
            f"{settings.target}: {said}",
            hint="PGOPTIONS, a service file or the URL says `-c role=...`: take that out, or GRANT the role to "
            f"{quoted(settings.user)}.",
        )
    if any(mark in said for mark in ("authentication failed", "no password supplied", "pg_hba.conf")) or (
        "role" in said and ("does not exist" in said or "is not permitted to log in" in said)
    ):
        return AuthenticationFailedError(
            f"{settings.target}: {said}",
            hint="Check POSTGRES_USER and POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE), and the server's pg_hba.conf.",
        )
    if "unsupported startup parameter" in said:
        raise PoolerError
    if len(settings.addresses) > 1:
        said = _every_line(text)
    if any(mark in text for mark in _ANOTHER_KIND):
        return ConnectionFailedError(
            f"no server of {settings.target} is what target_session_attrs asks for: {said}",
            hint="If another server is taking over, it is there in a moment; else look which one is the primary, and "
            "name it in POSTGRES_HOST or MLOPS_DATABASE_URL.",
        )
    if "FATAL" not in text:
        return _not_reached(text, said, settings)
    hint = "The server answered and refused; its log says more. If it is just starting, try again."
    if any(mark in said for mark in ("parameter", "requires a value", "command-line argument")):
        hint = "It is a setting that PGOPTIONS, PGTZ, the URL or a service file gives, and the server does not take."
    return ConnectionFailedError(f"{settings.target}: {said}", hint=hint)


def _not_reached(text: str, said: str, settings: Settings) -> ConnectionFailedError:
    """Tell what the server had no part in."""
    if text.startswith(_LIBPQ_REFUSES):
        return ConnectionFailedError(
            f"libpq cannot use a setting: {said}",
            hint="Check the PG... variables, the service file, and what follows ? in MLOPS_DATABASE_URL.",
        )
    if any(mark in text for mark in ("SSL", "certificate")):
        return ConnectionFailedError(
            f"no encrypted connection to {settings.target}: {said}",
            hint='Check PGSSLMODE and PGSSLROOTCERT, in a URL sslmode and sslrootcert: docs/operating.md, "TLS".',
        )
    return ServerUnreachableError(
        f"no PostgreSQL answers at {settings.target}: {said}",
        hint="Is the server running (`docker-compose ps postgres`)? Are POSTGRES_HOST and POSTGRES_PORT right? "
        "POSTGRES_HOST=embedded needs no server of yours.",
    )


def first_line(text: str) -> str:
    """Reduce what the server said to its first line, without the severity that the language decides."""
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return line.partition(":  ")[2] or line


def _last_line(text: str) -> str:
    """Reduce libpq's account of every address it tried to what the last one said."""
    # The rest is libpq's advice about the line before it.
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t", "Either provide "))]
    line = ([line for line in lines if "FATAL:" in line] or lines or ["no reason given"])[-1]
    return line.partition("FATAL:")[2].strip() or line.rpartition("failed: ")[2]


def _every_line(text: str) -> str:
    """Reduce libpq's account of several servers to one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return "; ".join(line.removeprefix("connection to server ").replace(" failed: ", ": ") for line in lines)
