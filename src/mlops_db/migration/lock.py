"""The run lock: an advisory lock that lets one migration run at a time work on a database.

It is taken on the connection that runs the DDL, so that it lasts exactly as long as the statements it protects: after a
client was killed, its last statement can still run on the server, and the lock must not end before it. The lock is
polled, because a session that waits in `pg_advisory_lock` would block CREATE INDEX CONCURRENTLY (flyway issue 1654),
which waits for every older transaction.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from mlops_db.errors import MlopsDbError, PoolerError, RefusedError
from mlops_db.server.advisory import RUN_LOCK, holding_sessions, holds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from mlops_db.migration.progress import Progress

FIRST_POLL_S = 0.025
LAST_POLL_S = 1.0

# SQL: whether this backend still holds the lock; asked before its transaction commits a revision.
HELD = f"EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = pg_backend_pid() AND {holds(str(RUN_LOCK))})"


def require_direct_connection(connection: Connection) -> None:
    """Refuse a connection through a pooler, where session locks and settings do not stay with one client.

    A pooler such as PgBouncer announces a process id of its own when the connection starts; the server's differs.

    Raises:
        PoolerError: the two differ.
    """
    driver: Any = connection.connection.dbapi_connection
    if driver.info.backend_pid != connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one():
        raise PoolerError


@contextmanager
def run_lock(connection: Connection, *, wait_ms: int, progress: Progress) -> Iterator[None]:
    """Hold the run lock of the connected database.

    If the caller has begun a transaction, the lock lasts to its end. Otherwise no transaction is left open.

    Args:
        connection: the connection that will run the revisions.
        wait_ms: how long to wait for the one that holds it, in milliseconds.
        progress: shows who holds it.

    Raises:
        RefusedError: it did not become free within that time; the message names the holder.
    """
    callers_transaction = connection.in_transaction()
    function = "pg_try_advisory_xact_lock" if callers_transaction else "pg_try_advisory_lock"
    deadline = time.monotonic() + wait_ms / 1000
    pause = FIRST_POLL_S
    shown = None
    while True:
        acquired = connection.exec_driver_sql(f"SELECT {function}(%(lock)s)", {"lock": RUN_LOCK}).scalar_one()
        holder = None if acquired else _find_holder(connection)
        if not callers_transaction:
            connection.commit()
        if acquired:
            break
        if holder != shown:
            progress.note("waiting for another run or command: %s", holder or "it has just ended", blocked_by=holder)
            shown = holder
        left = deadline - time.monotonic()
        if left <= 0:
            raise RefusedError(
                f"another run or command still holds the lock after {wait_ms / 1000:g} s: "
                f"{holder or 'one that has just ended'}; nothing was changed",
                hint="Let it end and try again, wait longer with -x lock-wait=10min, or end it with "
                "SELECT pg_terminate_backend(pid).",
            )
        time.sleep(min(left, pause * random.uniform(0.5, 1)))  # noqa: S311  (jitter, not a secret)
        pause = min(pause * 2, LAST_POLL_S)
    try:
        yield
    finally:
        if not callers_transaction:
            with suppress(SQLAlchemyError, MlopsDbError):  # a broken connection has released it already
                connection.rollback()
                connection.exec_driver_sql("SELECT pg_advisory_unlock(%(lock)s)", {"lock": RUN_LOCK})
                connection.commit()


def _find_holder(connection: Connection) -> str | None:
    row = connection.exec_driver_sql(
        "SELECT l.pid, a.application_name, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
        + holding_sessions(str(RUN_LOCK))
    ).first()
    return None if row is None else f"pid {row[0]} ({row[1]}), connected since {row[2]} UTC"
