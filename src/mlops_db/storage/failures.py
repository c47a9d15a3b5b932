"""What a job is told when the server, or the way to it, fails: which errors are ours to tell, and as what."""

import psycopg2
from sqlalchemy.exc import SQLAlchemyError, StatementError

from mlops_db.errors import (
    ConnectionLostError,
    ContentionError,
    MlopsDbError,
    NotPermittedError,
    StatementTimeoutError,
)
from mlops_db.server.connection import explained_statement_failure, first_line, quoted
from mlops_db.settings import Settings

# Manual, appendix A. Classes of what only another program can cause; the exceptions are a user's to mend.
_PROGRAMMING = ("0A", "25", "26", "34", "3B", "42")
_NOT_PROGRAMMING = ("25006", "42501", "42P01")
_LOST = ("08", "57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04")
_CONTENTION = ("40001", "40P01", "55P03")
_CANCELED = "57014"
_NO_PRIVILEGE = "42501"


def failure_of(
    error: BaseException, *, broken: bool, committed: bool | None, settings: Settings
) -> MlopsDbError | None:
    """What to raise instead of `error`; None if it is not ours to tell: a defect of a program, or not the database's.

    Args:
        error: what was raised while a transaction ran; psycopg2's, SQLAlchemy's or any other.
        broken: whether the connection is gone.
        committed: what is known about the transaction, as in `ConnectionLostError`.
        settings: where the database is.
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
    return _refused(cause, code, settings)


def _refused(error: psycopg2.Error, code: str, settings: Settings) -> MlopsDbError:
    told = explained_statement_failure(error, settings)
    if code == _CANCELED:
        return StatementTimeoutError(
            str(told),
            hint="statement_timeout is the role's, the database's or the URL's (options): raise it, or ask for less. "
            "Somebody may also have cancelled it.",
        )
    if code == _NO_PRIVILEGE and "row-level security" not in str(told):
        return NotPermittedError(
            str(told),
            hint=f"Let the owner GRANT the privilege to {quoted(settings.user)}. What jobs need is in "
            'docs/operating.md, "Roles and ownership"; MLOPS_OWNER_ROLE is not for them.',
        )
    if code in _CONTENTION:
        return ContentionError(str(told), hint="Others use the same rows at the moment: nothing was stored, try again.")
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
