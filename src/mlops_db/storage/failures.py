"""Translates errors of psycopg2 and SQLAlchemy into this package's errors for jobs."""

import shlex
from collections.abc import Sequence

import psycopg2
from sqlalchemy.exc import SQLAlchemyError, StatementError

from mlops_db.errors import (
    ConnectionLostError,
    ContentionError,
    MlopsDbError,
    NotPermittedError,
    StandbyError,
    StatementTimeoutError,
)
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.failures import NO_CODE, POSTMASTER_IS_GONE, first_line, quoted, translate_statement_failure
from mlops_db.settings import Settings
from mlops_db.storage.lock_holders import describe_holders
from mlops_db.storage.owned_connection import OwnedConnection
from mlops_db.storage.workers import translate_worker_failure

# SQLSTATEs and their classes (manual, appendix A). Errors that only a change of the program can remove are not
# translated; of their classes a user can resolve the exceptions.
_PROGRAMMING = ("0A", "25", "26", "34", "3B", "42")
_NOT_PROGRAMMING = ("25006", "42501", "42P01")
_LOST = ("08", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04")
_NO_LOCK = "55P03"
_CONTENTION = ("40001", "40P01", _NO_LOCK)
# A statement that writes; LOCK TABLE in a mode for writers.
_NO_WRITES = ("25006", "55000")
# A whole server is read-only by its configuration file or command line, not by a setting of a role, a database or a
# session.
_TAKES_NO_WRITES = """
SELECT pg_is_in_recovery() OR setting = 'on' AND source IN ('configuration file', 'command line')
  FROM pg_settings WHERE name = 'default_transaction_read_only'
"""
_CANCELED = "57014"
_NO_PRIVILEGE = "42501"


def is_failure_of(connection: OwnedConnection, error: BaseException) -> bool:
    """Whether the error is of this connection, and not of another one that the block uses."""
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, psycopg2.Error) and cause.cursor is not None:
        return bool(cause.cursor.connection == connection)  # a tracing library may have put a proxy around it
    if any(cause is failure for failure in connection.failures):
        return True
    # The error has no cursor if BEGIN failed, or if a closed connection was used.
    return connection.broken and isinstance(cause, psycopg2.Error | SQLAlchemyError)


def translate_failure(  # noqa: PLR0913  (what is known about the transaction)
    error: BaseException,
    settings: Settings,
    *,
    broken: bool,
    committed: bool | None,
    partly_stored: bool = False,
    notices: Sequence[str] | None = None,
) -> MlopsDbError | None:
    """The error to raise instead of `error`; None if it is not translated: a program's defect, or no database error.

    Args:
        error: what was raised while a transaction ran; psycopg2's, SQLAlchemy's or any other.
        settings: where the database is.
        broken: whether the connection is gone.
        committed: what is known about the transaction, as in `ConnectionLostError`.
        partly_stored: whether something that was committed before may be stored.
        notices: what Citus said beside the error, such as warnings; None: it is not there, and nobody means workers.
    """
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, MlopsDbError):  # the connection raised it, within a statement of SQLAlchemy's
        return cause
    if not isinstance(cause, psycopg2.Error):
        used_afterwards = broken and isinstance(error, SQLAlchemyError)
        return _lost("it was used after it had broken", settings, committed=committed) if used_afterwards else None
    code = cause.pgcode
    # An error of libpq, which is one of the connection, has no code. psycopg2 has other classes for errors in its use.
    from_libpq = code is None and type(cause) in (psycopg2.OperationalError, psycopg2.DatabaseError)
    if notices is not None and not broken:
        of_worker = translate_worker_failure(cause, settings, notices, partly_stored=partly_stored)
        if of_worker is not None:
            return of_worker
    is_killed = notices is not None and code == NO_CODE and POSTMASTER_IS_GONE in str(cause)
    if broken or from_libpq or is_killed or (code is not None and code.startswith(_LOST)):
        return _lost(first_line(cause.pgerror or str(cause)), settings, committed=committed)
    if code is None or (code.startswith(_PROGRAMMING) and code not in _NOT_PROGRAMMING):
        return None
    return _translate_refusal(cause, code, settings, partly_stored=partly_stored)


def _is_standby(error: psycopg2.Error) -> bool:
    """Whether the server takes no writes, and not this transaction alone; rolls it back."""
    if error.cursor is None:
        return False
    try:
        connection = error.cursor.connection
        connection.rollback()
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            return bool(cursor.value(_TAKES_NO_WRITES))
    except (psycopg2.Error, MlopsDbError):
        return False  # so that the refusal itself is raised


def _translate_refusal(error: psycopg2.Error, code: str, settings: Settings, *, partly_stored: bool) -> MlopsDbError:
    refusal = translate_statement_failure(error, settings)
    if code == _CANCELED:
        return StatementTimeoutError(
            str(refusal),
            hint="MLOPS_POOL_STATEMENT_TIMEOUT ended it, or a shorter statement_timeout of the role, of the database or"
            " of the URL (options): raise it, or ask for less. Somebody may also have cancelled the statement.",
        )
    if code == _NO_PRIVILEGE and "row-level security" not in str(refusal):
        role = shlex.quote(settings.user)
        return NotPermittedError(
            str(refusal),
            hint=f"For calls of the storage layer, let the owner run `mlops-db grant-writer {role}`. If `mlops-db "
            f"roles` shows {quoted(settings.user)} as a writer, anything else is for the owner. If it is a writer "
            "only after SET ROLE, let jobs log in as a role that inherits. MLOPS_OWNER_ROLE is not for jobs.",
        )
    if code in _NO_WRITES and _is_standby(error):
        refusal = StandbyError(
            f"{settings.target} takes no writes, as a standby: {refusal}",
            hint="Repeat the call: it connects again. To let it find the primary, name all servers, with "
            'target_session_attrs=read-write: docs/operating.md, "Replication and failover".',
        )
        refusal.retryable = not partly_stored
    elif code in _CONTENTION:
        hint = "Others use the same rows at the moment: nothing was stored, try again."
        if partly_stored:
            hint = "Others use the same rows at the moment; a part of the block may be stored: check before you retry."
        holders = ""
        if code == _NO_LOCK:
            holders = describe_holders(error)
            hint += (
                " SELECT pg_terminate_backend(pid) ends a session that is stuck. MLOPS_POOL_LOCK_TIMEOUT is how long to"
                " wait."
            )
        refusal = ContentionError(f"{refusal}{holders}", hint=hint)
        refusal.retryable = not partly_stored
    return refusal


def _lost(line: str, settings: Settings, *, committed: bool | None) -> ConnectionLostError:
    outcome, hint = "nothing of it was stored", "Repeat the call: the next one gets a new connection."
    if committed is not False:
        outcome = "it broke while it was committed, so it may be stored"
        hint = "Check whether it is stored before you repeat it; calls that are idempotent can simply be repeated."
    return ConnectionLostError(
        f"the connection to {settings.target} broke: {line}; {outcome}", committed=committed, hint=hint
    )
