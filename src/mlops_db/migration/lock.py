"""One migration run at a time: an advisory lock on the connection that runs the DDL.

On that connection and no other, so that the lock lives exactly as long as the statements it protects: a killed client's
last statement can still run on the server, and until the server notices, the lock has to stand. It is polled instead
of waited for, because a waiter inside `pg_advisory_lock` would hold up CREATE INDEX CONCURRENTLY (flyway issue 1654),
which waits for every transaction that is older than itself.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from mlops_db.errors import MlopsDbError, PoolerError, RefusedError
from mlops_db.server.advisory import holding_sessions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from mlops_db.migration.progress import Progress

RUN_LOCK = 0x6D6C6F70735F7275  # "mlops_ru" in ASCII; advisory locks count per database
FIRST_POLL_S = 0.025
LAST_POLL_S = 1.0

# A fence: whether this very backend holds it still, asked before its transaction commits a revision.
HELD = f"EXISTS (SELECT {holding_sessions(str(RUN_LOCK))} AND l.pid = pg_backend_pid())"


def require_direct_connection(connection: Connection) -> None:
    """Refuse a connection through a pooler, under which session locks and settings belong to nobody for long.

    A pooler that answers for the server, such as PgBouncer, hands out a process id of its own when the connection
    starts; the server's own differs.

    Raises:
        PoolerError: the two differ.
    """
    driver = connection.connection.dbapi_connection
    announced = getattr(getattr(driver, "info", None), "backend_pid", None)
    actual = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    if announced not in (None, actual):
        raise PoolerError


@contextmanager
def run_lock(connection: Connection, *, wait_ms: int, progress: Progress) -> Iterator[None]:
    """Hold the run lock of the connected database.

    If the connection is in a transaction of its caller's, the lock lasts to the end of that transaction. Otherwise no
    transaction is left open behind.

    Args:
        connection: the connection that will run the revisions.
        wait_ms: how long to wait for the run that holds it, in milliseconds.
        progress: told who holds it.

    Raises:
        RefusedError: it was not free within that time; the message names the holder.
    """
    callers = connection.in_transaction()
    _acquire(connection, wait_ms, progress, "pg_try_advisory_xact_lock" if callers else "pg_try_advisory_lock")
    try:
        yield
    finally:
        if not callers:
            with suppress(SQLAlchemyError, MlopsDbError):  # a broken connection has let go of it already
                connection.rollback()
                connection.exec_driver_sql("SELECT pg_advisory_unlock(%(lock)s)", {"lock": RUN_LOCK})
                connection.commit()


def _acquire(connection: Connection, wait_ms: int, progress: Progress, function: str) -> None:
    callers = connection.in_transaction()
    deadline = time.monotonic() + wait_ms / 1000
    pause = FIRST_POLL_S
    told = None
    while True:
        acquired = connection.exec_driver_sql(f"SELECT {function}(%(lock)s)", {"lock": RUN_LOCK}).scalar_one()
        holder = None if acquired else _holder(connection)
        if not callers:
            connection.commit()
        if acquired:
            return
        if holder != told:
            progress.note(f"waiting for another migration run: {holder or 'it has just ended'}")
            told = holder
        left = deadline - time.monotonic()
        if left <= 0:
            raise RefusedError(
                f"another migration run still holds the lock after {wait_ms / 1000:g} s: "
                f"{holder or 'a run that has just ended'}; nothing was changed",
                hint="Let it end and try again, wait longer with -x lock-wait=10min, or end it with "
                "SELECT pg_terminate_backend(pid).",
            )
        time.sleep(min(left, pause * random.uniform(0.5, 1)))  # noqa: S311  (jitter, not a secret)
        pause = min(pause * 2, LAST_POLL_S)


def _holder(connection: Connection) -> str | None:
    row = connection.exec_driver_sql(
        "SELECT l.pid, a.application_name, to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
        + holding_sessions(str(RUN_LOCK))
    ).first()
    return None if row is None else f"pid {row[0]} ({row[1]}), connected since {row[2]} UTC"
