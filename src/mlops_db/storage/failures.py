"""What a job is told when the server, or the way to it, fails: which errors are ours to tell, and as what."""

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
from mlops_db.server.failures import first_line, quoted, translate_statement_failure
from mlops_db.settings import Settings
from mlops_db.storage.holders import holders_of_lock
from mlops_db.storage.owned_connection import OwnedConnection

# Manual, appendix A. Classes of what only another program can cause; the exceptions are a user's to mend.
_PROGRAMMING = ("0A", "25", "26", "34", "3B", "42")
_NOT_PROGRAMMING = ("25006", "42501", "42P01")
_LOST = ("08", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04")
_NO_LOCK = "55P03"
_CONTENTION = ("40001", "40P01", _NO_LOCK)
# A statement that writes; LOCK TABLE in a mode for writers.
_NO_WRITES = ("25006", "55000")
# A primary is also demoted, or kept from writing, by its configuration; a role or a database is not, nor a session.
_TAKES_NO_WRITES = """
SELECT pg_is_in_recovery() OR setting = 'on' AND source IN ('configuration file', 'command line')
  FROM pg_settings WHERE name = 'default_transaction_read_only'
"""
_CANCELED = "57014"
_NO_PRIVILEGE = "42501"


def is_failure_of(connection: OwnedConnection, error: BaseException) -> bool:
    """Whether it is this connection that failed, and not another that is used beside it, of whatever database."""
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, psycopg2.Error) and cause.cursor is not None:
        return bool(cause.cursor.connection == connection)  # which a tracing library may have put a proxy before
    if any(cause is failure for failure in connection.failures):
        return True
    # psycopg2 names no cursor if BEGIN failed, or if what is used is closed; SQLAlchemy likewise.
    return connection.broken and isinstance(cause, psycopg2.Error | SQLAlchemyError)


def failure_of(
    error: BaseException, *, broken: bool, committed: bool | None, settings: Settings, partly: bool = False
) -> MlopsDbError | None:
    """What to raise instead of `error`; None if it is not ours to tell: a defect of a program, or not the database's.

    Args:
        error: what was raised while a transaction ran; psycopg2's, SQLAlchemy's or any other.
        broken: whether the connection is gone.
        committed: what is known about the transaction, as in `ConnectionLostError`.
        settings: where the database is.
        partly: whether something that was committed before may be stored.
    """
    cause = error.orig if isinstance(error, StatementError) else error
    if isinstance(cause, MlopsDbError):  # raised by the connection, within a statement of SQLAlchemy's
        return cause
    if not isinstance(cause, psycopg2.Error):
        used_afterwards = broken and isinstance(error, SQLAlchemyError)
        return _lost("it was used after it had broken", settings, committed=committed) if used_afterwards else None
    code = cause.pgcode
    # Without a code it is libpq's own: the connection's. psycopg2 tells mistakes in its use by other classes.
    from_libpq = code is None and type(cause) in (psycopg2.OperationalError, psycopg2.DatabaseError)
    if broken or from_libpq or (code is not None and code.startswith(_LOST)):
        return _lost(first_line(cause.pgerror or str(cause)), settings, committed=committed)
    if code is None or (code.startswith(_PROGRAMMING) and code not in _NOT_PROGRAMMING):
        return None
    return _refused(cause, code, settings, partly=partly)


def _is_standby(error: psycopg2.Error) -> bool:
    """Whether it is the server that takes no writes, and not this transaction alone; rolls it back."""
    if error.cursor is None:
        return False
    try:
        connection = error.cursor.connection
        connection.rollback()
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            cursor.execute(_TAKES_NO_WRITES)
            return cursor.fetchone() == (True,)
    except (psycopg2.Error, MlopsDbError):
        return False  # the refusal itself is told, whatever came of the look


def _refused(error: psycopg2.Error, code: str, settings: Settings, *, partly: bool) -> MlopsDbError:
    told = translate_statement_failure(error, settings)
    if code == _CANCELED:
        return StatementTimeoutError(
            str(told),
            hint="It is MLOPS_POOL_STATEMENT_TIMEOUT, or a shorter statement_timeout of the role, the database or the "
            "URL (options): raise it, or ask for less. Somebody may also have cancelled it.",
        )
    if code == _NO_PRIVILEGE and "row-level security" not in str(told):
        return NotPermittedError(
            str(told),
            hint=f"Let the owner GRANT the privilege to {quoted(settings.user)}. What jobs need is in "
            'docs/operating.md, "Roles and ownership"; MLOPS_OWNER_ROLE is not for them.',
        )
    if code in _NO_WRITES and _is_standby(error):
        standby = StandbyError(
            f"{settings.target} takes no writes, as a standby: {told}",
            hint="Repeat the call: it connects anew. Name all servers, with target_session_attrs=read-write, for it to "
            'find the primary: docs/operating.md, "Replication and failover".',
        )
        standby.retryable = not partly
        return standby
    if code in _CONTENTION:
        hint = (
            "Others use the same rows at the moment; a part of the block may be stored: look before you repeat it."
            if partly
            else "Others use the same rows at the moment: nothing was stored, try again."
        )
        holders = ""
        if code == _NO_LOCK:
            holders = holders_of_lock(error)
            hint += (
                " SELECT pg_terminate_backend(pid) ends a session that is stuck. MLOPS_POOL_LOCK_TIMEOUT is how long to"
                " wait."
            )
        contention = ContentionError(f"{told}{holders}", hint=hint)
        contention.retryable = not partly
        return contention
    return told


def _lost(line: str, settings: Settings, *, committed: bool | None) -> ConnectionLostError:
    outcome = (
        "nothing of it was stored" if committed is False else "it broke while it was committed, so it may be stored"
    )
    return ConnectionLostError(
        f"the connection to {settings.target} broke: {line}; {outcome}",
        committed=committed,
        hint="Repeat the call: the next one gets a new connection."
        if committed is False
        else "Look whether it is stored before it is repeated; calls that are idempotent can simply be repeated.",
    )
