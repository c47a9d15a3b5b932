"""Advisory locks that last for one transaction, so that two jobs do not change the same model or moment at once.

A lock of rows would not do: a model or a moment need not have a row yet. Everybody who may connect can take an advisory
lock by hand, so a wait ends after MLOPS_LOCK_WAIT and the error names the holder.
"""

from typing import Any

import psycopg2.errors

from mlops_db.errors import ContentionError
from mlops_db.server.advisory import select_holders
from mlops_db.server.cursor import SafeCursor

_KEY = "hashtextextended(%(key)s, 0)"
_TRY = f"SELECT pg_try_advisory_xact_lock({_KEY})"
# A shorter lock_timeout of the role or the database holds, MLOPS_POOL_LOCK_TIMEOUT (module `timeouts`) does not: it is
# for other locks. The result is at least 1, because 0 would be no timeout.
_PATIENCE = """
SELECT greatest(least(nullif(theirs::bigint, 0), %(wait)s), 1), current_setting('lock_timeout')
  FROM (SELECT nullif(setting, current_setting('mlops_db.pool_lock_timeout', true))
          FROM pg_settings WHERE name = 'lock_timeout') AS patience (theirs)
"""
_WAIT = f"SAVEPOINT turn; SET LOCAL lock_timeout = %(patience)s; SELECT pg_advisory_xact_lock({_KEY})"


def lock_until_commit(cursor: SafeCursor, key: str, what: str, wait_ms: int) -> None:
    """Wait for the lock of `key`, and keep it until the transaction ends.

    Args:
        cursor: of the transaction.
        key: what to lock.
        what: the same in the words of a message.
        wait_ms: how long to wait, in milliseconds.

    Raises:
        ContentionError: another session still has the lock; the message names it.
    """
    values: dict[str, Any] = {"key": key, "wait": wait_ms}
    if cursor.value(_TRY, values):
        return
    cursor.execute(_PATIENCE, values)
    patience, before = cursor.fetchone() or (wait_ms, "0")
    try:
        cursor.execute(_WAIT, values | {"patience": patience})
    except psycopg2.errors.LockNotAvailable:
        cursor.execute("ROLLBACK TO SAVEPOINT turn")
        holders = cursor.value(select_holders(_KEY), values)
        raise ContentionError(
            f"{what} is still locked after {patience / 1000:g} s (lock timeout), by "
            f"{holders or 'a session that has just ended'}; nothing was stored",
            hint="Try again once that session is done; SELECT pg_terminate_backend(pid) ends one that is stuck. "
            "MLOPS_LOCK_WAIT is how long to wait.",
        ) from None
    cursor.execute("SET LOCAL lock_timeout = %s; RELEASE SAVEPOINT turn", (before,))
