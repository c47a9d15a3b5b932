"""Translates what Citus says about the workers of a distributed database.

Jobs are connected to the coordinator, so their connection stays if a worker is lost. Citus reports that in several
ways, and some errors of workers without their SQLSTATE. Its own messages are in English, whatever lc_messages is. Those
of PostgreSQL and libpq that it passes on are translated: in another language the marks below do not find them.
"""

from collections.abc import Sequence

import psycopg2

from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionLostError,
    ContentionError,
    MlopsDbError,
    StatementTimeoutError,
    TooManyConnectionsError,
    WorkerUnreachableError,
)
from mlops_db.server.citus import NODE
from mlops_db.server.failures import IO_ERROR, NO_CODE, SAYS_NODE_LOST, first_line, is_limit
from mlops_db.settings import Settings

_LOST = ("08", "57P01", "57P02", "57P03", "57P04", "57P05")
_CONTENTION = (
    "deadlock detected",
    "canceling statement due to lock timeout",
    "could not serialize access",
    "could not find valid entry for shard",  # it was split while the statement waited
)
_CANCELED = ("canceling statement due to user request", "canceling statement due to statement timeout")
# The worker was asked to commit, and did not answer: a transaction of one worker has no second phase.
_NOT_COMMITTED = "could not commit transaction for shard"
_MAY_BE_COMMITTED = (_NOT_COMMITTED, "failed to commit transaction on")
# The worker answers, but not to this role: that does not pass.
_REFUSED = ("authentication failed", "no password supplied", "pg_hba.conf", "permitted to log in", "does not exist")


def translate_worker_failure(
    error: psycopg2.Error, settings: Settings, notices: Sequence[str], *, partly_stored: bool
) -> MlopsDbError | None:
    """The error to raise instead of `error`; None if no worker was lost, and the error has its SQLSTATE.

    Args:
        error: what the coordinator raised.
        settings: where the database is.
        notices: the warnings of the connection, in which Citus says more.
        partly_stored: whether something that was committed before may be stored.
    """
    text, code = error.pgerror or str(error), error.pgcode or ""
    line = first_line(text).rpartition("the following error: ")[2]
    if code == NO_CODE and _has(_CONTENTION, text, *notices):
        refusal = ContentionError(line, hint="Others use the same rows at the moment: nothing was stored, try again.")
        refusal.retryable = not partly_stored
        return refusal
    if code == NO_CODE and _has(_CANCELED, line):
        return StatementTimeoutError(
            line,
            hint="Somebody has cancelled it on the worker, or a statement_timeout ended it that the role or the "
            "database has there.",
        )
    nodes = [found[1] for said in (text, error.diag.context or "", *reversed(notices)) if (found := NODE.search(said))]
    unknown = code == NO_CODE and _NOT_COMMITTED in text
    lost = code.startswith(_LOST) or (code in (NO_CODE, IO_ERROR) and _has(SAYS_NODE_LOST, text))
    # What libpq or a dying worker says may come without its address.
    if not unknown and not (lost and (nodes or code == NO_CODE)):
        return None
    node = f"worker {nodes[0]}" if nodes else "a worker"
    if unknown or partly_stored or _has(_MAY_BE_COMMITTED, *notices):
        return ConnectionLostError(
            f"{settings.target} lost {node}: {line}; it broke while it was committed, so it may be stored",
            committed=None,
            hint="Check whether it is stored before you repeat it; calls that are idempotent can simply be repeated.",
        )
    return _translate_unreached(f"{node} of {settings.target}", line, text)


def _translate_unreached(where: str, line: str, text: str) -> MlopsDbError:
    """Translate a failure before anything was committed: the worker refused the coordinator, or was lost."""
    reason = line.removeprefix("FATAL:").strip()
    if _has(_REFUSED, text):
        return AuthenticationFailedError(
            f"{where} refuses the coordinator: {reason}; nothing of it was stored",
            hint="The coordinator connects to its workers as the role of the job. Each needs that role, with "
            "LOGIN, the database, and a way in: pg_hba.conf, and the password in the coordinator's .pgpass.",
        )
    if is_limit(text):
        return TooManyConnectionsError(
            f"{where} refuses the coordinator: {reason}; nothing of it was stored",
            hint="A session of a job that asks a worker has one there, too, or several. Repeat the call; raise the "
            "limit there, or lower MLOPS_POOL_SIZE, or citus.max_shared_pool_size on the coordinator.",
        )
    return WorkerUnreachableError(
        f"{where} does not answer: {line}; nothing of it was stored",
        hint="Repeat the call when that worker is back. Calls about models of other workers go on; calls about all "
        "models need every worker.",
    )


def _has(marks: Sequence[str], *texts: str) -> bool:
    return any(mark in text for text in texts for mark in marks)
