"""Translates the failures of libpq, psycopg2 and the server into errors of ours, each with a hint."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    DatabaseMissingError,
    MlopsDbError,
    NotPermittedError,
    PoolerError,
    RefusedError,
    ServerUnreachableError,
    StatementFailedError,
    TooManyConnectionsError,
    alembic,
)
from mlops_db.server.citus import NODE
from mlops_db.settings import Settings

_BUSY = "Other sessions use it: let them finish, then run it again."
_HINTS: dict[type[psycopg2.Error], str] = {
    psycopg2.errors.ReadOnlySqlTransaction: (
        "This server or role takes no writes: connect to the primary, as a role that may write."
    ),
    psycopg2.errors.LockNotAvailable: _BUSY,
    psycopg2.errors.DeadlockDetected: _BUSY,
    psycopg2.errors.DependentObjectsStillExist: "Drop what depends on it first, and create that again afterwards.",
    psycopg2.errors.FeatureNotSupported: (
        "Change what it names, such as a column of a table's row type, which needs another type. Then run it again."
    ),
    psycopg2.errors.UndefinedTable: (
        f"Run `{alembic('upgrade head')}`; if nothing is left to do, `mlops-db status` shows what is missing."
    ),
    psycopg2.errors.QueryCanceled: "If it needs more time: -x statement-timeout=10min. Run it again to resume.",
}
# The code of what Citus gives no other: what libpq says, what a worker says about COPY, and the end of a transaction.
NO_CODE = "XX000"
IO_ERROR = "58030"
# What is said then if a node of Citus was lost; in English if lc_messages is.
SAYS_NODE_LOST = (
    "closed the connection",
    "connection has been closed",
    "connection not open",
    "no connection to the server",
    "invalid socket",
    "SSL SYSCALL error",
    "could not receive data from server",
    "could not send data to server",
    "terminating connection due to",
    "failed to prepare transaction",
    "failed to COPY to shard",
    "failed to complete COPY on",
    "failure on connection marked as essential",  # which only says that something failed before, or not even that
)
_NO_CONNECTION_TO_NODE = "connection to the remote node "
_NODE_HINT = (
    "The coordinator connects to each node of Citus as the role that asks. See that the node runs, and lets it in: "
    'docs/scaling.md, "Setting it up". Run the same command again when that worker is back.'
)
# Citus: the coordinator was killed while the session waited for workers.
POSTMASTER_IS_GONE = "postmaster was shut down, exiting"


@contextmanager
def translate_statement_failures(settings: Settings) -> Iterator[None]:
    """Translate the errors of psycopg2, and of SQLAlchemy over it, that the block raises.

    Raises:
        MlopsDbError: the server refused a statement of the block, or the connection broke.
    """
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", error)  # SQLAlchemy's errors hold the driver's there
        if not isinstance(cause, psycopg2.Error):
            raise
        raise translate_statement_failure(cause, settings) from None


def find_server_error(error: BaseException | None) -> psycopg2.Error | None:
    """The driver's error behind an exception; where a connection broke, errors of its use come after it."""
    found = None
    while error is not None:
        cause = getattr(error, "orig", error)
        if isinstance(cause, psycopg2.InterfaceError):
            found = found or cause
        elif isinstance(cause, psycopg2.Error):
            return cause
        error = error.__context__
    return found


def translate_statement_failure(error: psycopg2.Error, settings: Settings) -> MlopsDbError:
    """The error to raise for a refused statement; a RAISE of our own functions brings its message and hint."""
    line = first_line(error.pgerror or str(error))
    if lost := _translate_lost_node(error, line, settings):
        return lost
    if error.diag.message_detail:
        line = f"{line} ({'; '.join(error.diag.message_detail.splitlines())})"
    if error.diag.source_function == "exec_stmt_raise" and error.diag.message_hint:
        return RefusedError(line, hint=error.diag.message_hint)
    if isinstance(error, psycopg2.errors.InsufficientPrivilege):
        hint = (
            "Connect as the owner of what it names, or name that role in MLOPS_OWNER_ROLE; or let the owner GRANT the "
            f"privilege to {quoted(settings.owner_role or settings.user)}. In a copy that lost its owners, the role "
            "that restored it runs `mlops-db check --sql`."
        )
        if "row-level security" in line:
            hint = (
                "A policy hides rows from this role, and all rows are needed. Run ALTER TABLE ... NO FORCE ROW LEVEL "
                "SECURITY first, or connect as a role with BYPASSRLS."
            )
        return NotPermittedError(line, hint=hint)
    for kind, hint in _HINTS.items():
        if isinstance(error, kind):
            return StatementFailedError(line, hint=hint)
    if error.pgcode is None or isinstance(error, psycopg2.errors.AdminShutdown) or POSTMASTER_IS_GONE in line:
        return StatementFailedError(
            f"the connection to {settings.target} broke: {line}",
            hint="Look at the server's log, then run the same command again.",
        )
    hint = "The server's log has the statement."
    if "citus." in (said := error.diag.message_hint or ""):  # it names the setting with which the statement runs
        hint = said
    return StatementFailedError(f"{line} (SQLSTATE {error.pgcode})", hint=hint)


def _translate_lost_node(error: psycopg2.Error, line: str, settings: Settings) -> StatementFailedError | None:
    """The error to raise if the coordinator of Citus has lost a node, or cannot connect to it; else None."""
    text, code = f"{error.pgerror}\n{error.diag.context}", error.pgcode or ""
    node = NODE.search(text)
    says_so = code in (NO_CODE, IO_ERROR) and any(mark in text for mark in SAYS_NODE_LOST)
    if not (_NO_CONNECTION_TO_NODE in text or says_so or (node and code.startswith(("08", "57P0")))):
        return None
    reason = line.rpartition("the following error: ")[2]
    what = "refuses the coordinator" if "FATAL:" in reason else "was lost, or does not answer"
    no_login = re.search(r'role "(.*)" is not permitted to log in', line)
    hint = f"On every node a superuser does: ALTER ROLE {quoted(no_login[1])} LOGIN; " if no_login else ""
    return StatementFailedError(
        f"{f'worker {node[1]}' if node else 'a worker'} of {settings.target} {what}: "
        f"{reason.replace('FATAL:', '').strip()}",
        hint=hint + _NODE_HINT,
    )


@contextmanager
def translate_connection_failures(settings: Settings, database: str) -> Iterator[None]:
    """Translate the errors of an attempt to connect to that database.

    Raises:
        ConnectionFailedError: the subclass says why.
        NotPermittedError: PGOPTIONS names a role that does not exist, or that this login may not become.
        PoolerError: a pooler takes no options.
    """
    try:
        yield
    except psycopg2.OperationalError as error:
        raise _translate(error, settings, database) from None
    except UnicodeError:  # psycopg2 cannot read the server's refusal, which quotes the value
        raise ConnectionFailedError(
            f"{settings.target}: the server refused a value that is not UTF-8",
            hint="Check libpq's variables (PGOPTIONS, PGTZ and others) and the URL. The server's log has its message.",
        ) from None


# How libpq's text begins if it has not even tried to connect.
_LIBPQ_REFUSES = (
    "invalid ",
    "could not match ",
    "definition of service",
    "service file",
    "syntax error in service file",
)

_LIMITS = ("too many connections for ", "too many clients already", "remaining connection slots are reserved")

# libpq's text about a server that target_session_attrs does not accept.
_ANOTHER_KIND = (
    "session is read-only",
    "session is not read-only",
    "in hot standby mode",
    "make a writable connection",
)


def _translate(error: psycopg2.OperationalError, settings: Settings, database: str) -> ConnectionFailedError:
    """Translate a failed connection.

    psycopg2 gives no SQLSTATE for it, so libpq's English text decides. Messages in another language end in the last,
    general case, which quotes them.
    """
    text = str(error)
    line = _last_line(text)
    if "could not translate host name" in text and len(settings.addresses) == 1:
        return ServerUnreachableError(
            f"host name {settings.host!r} cannot be resolved",
            hint="Set POSTGRES_HOST to your server, or to `embedded` for one that pip installed.",
        )
    if "database" in line and "does not exist" in line and "role" not in line:
        return DatabaseMissingError(
            f'database "{database}" does not exist on {settings.target.rpartition("/")[0]}',
            hint="Run `mlops-db create`.",
        )
    if "set role" in line or ("role" in line and "does not exist" in line and f'"{settings.user}"' not in line):
        raise NotPermittedError(
            f"{settings.target}: {line}",
            hint="PGOPTIONS, a service file or the URL sets `-c role=...`: remove that, or GRANT the role to "
            f"{quoted(settings.user)}.",
        )
    if any(mark in line for mark in ("authentication failed", "no password supplied", "pg_hba.conf")) or (
        "role" in line and ("does not exist" in line or "is not permitted to log in" in line)
    ):
        return AuthenticationFailedError(
            f"{settings.target}: {line}",
            hint="Check POSTGRES_USER and POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE), and the server's pg_hba.conf.",
        )
    if "unsupported startup parameter" in line:
        raise PoolerError
    if len(settings.addresses) > 1:
        line = _every_line(text)
    if any(mark in text for mark in _ANOTHER_KIND):
        return ConnectionFailedError(
            f"no server of {settings.target} fits target_session_attrs: {line}",
            hint="If another server takes over, try again in a moment. Otherwise find the primary, and name it in "
            "POSTGRES_HOST or MLOPS_DATABASE_URL.",
        )
    if "FATAL" not in text:
        return _translate_unreached(text, line, settings)
    return _translate_refused(line, settings, database)


def _translate_refused(line: str, settings: Settings, database: str) -> ConnectionFailedError:
    """Translate a refusal that is neither about the login nor about names."""
    if is_limit(line):
        return TooManyConnectionsError(
            f"{settings.target}: {line}",
            hint="Try again when other sessions have ended, or raise the limit: max_connections, or the CONNECTION "
            "LIMIT of the role or the database.",
        )
    hint = "The server refused the connection; see its log. If it is just starting, try again."
    is_setting = any(mark in line for mark in ("parameter", "requires a value", "command-line argument"))
    if is_setting:
        hint = "The server does not accept this setting of PGOPTIONS, PGTZ, the URL or a service file."
    elif "permission denied for database" in line:
        hint = f"Let the database's owner run GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(settings.user)};"
    failure = ConnectionFailedError(f"{settings.target}: {line}", hint=hint)
    failure.retryable = not is_setting
    return failure


def is_limit(text: str) -> bool:
    """Whether the server refuses a connection because it, the database or the role has all that it may have."""
    return any(mark in text for mark in _LIMITS)


def _translate_unreached(text: str, line: str, settings: Settings) -> ConnectionFailedError:
    """Translate a failure before a server answered."""
    if text.startswith(_LIBPQ_REFUSES):
        failure = ConnectionFailedError(
            f"libpq cannot use a setting: {line}",
            hint="Check the PG... variables, the service file, and what follows ? in MLOPS_DATABASE_URL.",
        )
        failure.retryable = False
        return failure
    if any(mark in text for mark in ("SSL", "certificate")):
        return ConnectionFailedError(
            f"no encrypted connection to {settings.target}: {line}",
            hint='Check PGSSLMODE and PGSSLROOTCERT, in a URL sslmode and sslrootcert: docs/operating.md, "TLS".',
        )
    return ServerUnreachableError(
        f"no PostgreSQL answers at {settings.target}: {line}",
        hint="Is the server running (`docker-compose ps postgres`)? Are POSTGRES_HOST and POSTGRES_PORT right? "
        "POSTGRES_HOST=embedded needs no server of yours.",
    )


def first_line(text: str) -> str:
    """The first line of a message of the server, without its severity, which differs by language."""
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return line.partition(":  ")[2] or line


def _last_line(text: str) -> str:
    """The answer of the last address in libpq's list of all addresses that it tried."""
    # Other lines are libpq's advice about the line before them.
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t", "Either provide "))]
    line = ([line for line in lines if "FATAL:" in line] or lines or ["no reason given"])[-1]
    return line.partition("FATAL:")[2].strip() or line.rpartition("failed: ")[2]


def _every_line(text: str) -> str:
    """The list that libpq gives of several servers, in one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith((" ", "\t"))]
    return "; ".join(line.removeprefix("connection to server ").replace(" failed: ", ": ") for line in lines)


def quoted(name: str) -> str:
    """The name as SQL writes it, for a statement in a hint."""
    return '"' + name.replace('"', '""') + '"'
