"""Recognises that a worker of a distributed database does not answer.

Jobs are connected to the coordinator, so their connection stays. Citus reports a lost worker in several ways, none of
them translated into other languages.
"""

import re
from collections.abc import Sequence

import psycopg2

from mlops_db.errors import ConnectionLostError, MlopsDbError, WorkerUnreachableError
from mlops_db.server.failures import first_line
from mlops_db.settings import Settings

# Where Citus names the node; a host may be the folder of a socket.
_NODE = re.compile(
    r"(?:remote node .*?@|to the node |for node |essential: |command on |transaction on |on host )(\S+:\d+)"
)
_LOST = ("08", "57P01", "57P02", "57P03", "57P04", "57P05")
# Citus gives no code of its own to what libpq says, and to what it finds out at the end of a transaction.
_NO_CODE = "XX000"
_LIBPQ_LOST = (
    "closed the connection",
    "connection has been closed",
    "connection not open",
    "no connection to the server",
    "invalid socket",
    "SSL SYSCALL error",
    "could not receive data from server",
    "could not send data to server",
    "failed to prepare transaction",
)
# The worker was asked to commit, and did not answer: a transaction of one worker has no second phase.
_NOT_COMMITTED = "could not commit transaction for shard"
_MAY_BE_COMMITTED = (_NOT_COMMITTED, "failed to commit transaction on")
_ESSENTIAL = "failure on connection marked as essential"
# The worker answers, but not to this role: that does not pass.
_REFUSED = ("authentication failed", "no password supplied", "pg_hba.conf", "permitted to log in", "does not exist")


def translate_lost_worker(
    error: psycopg2.Error, settings: Settings, notices: Sequence[str], *, partly_stored: bool
) -> MlopsDbError | None:
    """The error to raise instead of `error`; None if it is not about a worker that does not answer.

    Args:
        error: what the coordinator raised.
        settings: where the database is.
        notices: the warnings of the connection, in which Citus says more.
        partly_stored: whether something that was committed before may be stored.
    """
    text = error.pgerror or str(error)
    said = (text, error.diag.context or "", *reversed(notices))
    nodes = [found[1] for line in said if (found := _NODE.search(line))]
    unknown = _NOT_COMMITTED in text
    if not (unknown or (nodes and _is_lost(error, text, notices))):
        return None
    node = f"worker {nodes[0]}" if nodes else "a worker"
    line = first_line(text).rpartition("the following error: ")[2]
    if unknown or partly_stored or any(mark in line for line in notices for mark in _MAY_BE_COMMITTED):
        return ConnectionLostError(
            f"{settings.target} lost {node}: {line}; it broke while it was committed, so it may be stored",
            committed=None,
            hint="Check whether it is stored before you repeat it; calls that are idempotent can simply be repeated.",
        )
    failure = WorkerUnreachableError(
        f"{node} of {settings.target} does not answer: {line}; nothing of it was stored",
        hint="Repeat the call when that worker is back. Calls about models of other workers go on; calls about all "
        "models need every worker.",
    )
    failure.retryable = not any(mark in text for mark in _REFUSED)
    return failure


def _is_lost(error: psycopg2.Error, text: str, notices: Sequence[str]) -> bool:
    code = error.pgcode or ""
    if code != _NO_CODE:
        return code.startswith(_LOST)
    # This one only says that something failed before: without a word, if the connection had just gone.
    if _ESSENTIAL in text and not notices:
        return True
    texts = notices if _ESSENTIAL in text else (text,)
    return any(mark in line for line in texts for mark in (*_LIBPQ_LOST, "connection to the remote node"))
