"""Taking turns: what may not happen twice at once waits for an advisory lock, and not for ever.

Whoever may connect can take such a lock by hand. So each wait ends after the settings' `lock_wait`, and tells who holds
the lock. Locks that only writers can take would serve less well: a model or a moment need not have a row yet.
"""

from typing import Any

import psycopg2.errors

from mlops_db.errors import ContentionError
from mlops_db.server.advisory import HOLDERS, holding_sessions
from mlops_db.server.cursor import SafeCursor

_KEY = "hashtextextended(%(key)s, 0)"
_TRY = f"SELECT pg_try_advisory_xact_lock({_KEY})"
# A shorter lock_timeout of the role's or the database's stays, but MLOPS_POOL_LOCK_TIMEOUT's (`timeouts`) is for other
# locks; one of 0 would be none.
_PATIENCE = """
SELECT greatest(least(nullif(theirs::bigint, 0), %(wait)s), 1), current_setting('lock_timeout')
  FROM (SELECT nullif(setting, current_setting('mlops_db.pool_lock_timeout', true))
          FROM pg_settings WHERE name = 'lock_timeout') AS patience (theirs)
"""
_WAIT = f"SAVEPOINT turn; SET LOCAL lock_timeout = %(patience)s; SELECT pg_advisory_xact_lock({_KEY})"
_HOLDERS = f"SELECT {HOLDERS} {holding_sessions(_KEY)}"


def take_turn(cursor: SafeCursor, key: str, what: str, wait_ms: int) -> None:
    """Wait until no other transaction has taken this turn, and keep it to the end of this one.

    Args:
        cursor: of the transaction.
        key: what is taken turns for.
        what: the same in the words of a message.
        wait_ms: how long to wait, in milliseconds.

    Raises:
        ContentionError: it is still another's turn; the message says whose.
    """
    values: dict[str, Any] = {"key": key, "wait": wait_ms}
    cursor.execute(_TRY, values)
    if cursor.fetchone() == (True,):
        return
    cursor.execute(_PATIENCE, values)
    patience, before = cursor.fetchone() or (wait_ms, "0")
    try:
        cursor.execute(_WAIT, values | {"patience": patience})
    except psycopg2.errors.LockNotAvailable:
        cursor.execute("ROLLBACK TO SAVEPOINT turn")
        cursor.execute(_HOLDERS, values)
        (holders,) = cursor.fetchone() or (None,)
        raise ContentionError(
            f"{what} is still locked after {patience / 1000:g} s (lock timeout), by "
            f"{holders or 'a session that has just ended'}; nothing was stored",
            hint="Try again once that session is done; SELECT pg_terminate_backend(pid) ends one that is stuck. "
            "MLOPS_LOCK_WAIT is how long to wait.",
        ) from None
    cursor.execute("SET LOCAL lock_timeout = %s; RELEASE SAVEPOINT turn", (before,))
