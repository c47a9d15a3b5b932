"""Translates the failures of libpq, psycopg2 and the server into errors of ours, each with a hint."""

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
    alembic,
)
from mlops_db.settings import Settings

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


def translate_statement_failure(error: psycopg2.Error, settings: Settings) -> MlopsDbError:
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


@contextmanager
def translate_connection_failures(settings: Settings, database: str) -> Iterator[None]:
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


def quoted(name: str) -> str:
    """The name as SQL has it, for a statement that somebody is to run."""
    return '"' + name.replace('"', '""') + '"'
