"""The transaction that changes where the rows of the two tables are, and a cursor that only looks."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlops_db.admin.cluster.layout import METRICS, SERIES
from mlops_db.migration.blockers import BlockerWatch
from mlops_db.migration.lock import require_direct_connection, run_lock
from mlops_db.migration.retry import with_retries
from mlops_db.migration.session import migration_connection
from mlops_db.revisions import gate
from mlops_db.server.citus import BOUND_WAITS_ON_WORKERS
from mlops_db.server.connection import open_cursor
from mlops_db.server.failures import translate_statement_failures
from mlops_db.server.guests import SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.migration.progress import Progress
    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

# A step that waits for the table blocks all later queries on it, so it waits in short tries.
_LOCK_TIMEOUT_MS = 300
# Rows cannot be moved in parts.
_STATEMENT_TIMEOUT_MS = 24 * 3_600_000
_QUIET = "SET LOCAL client_min_messages = error"  # Citus tells about each step of its own
# Readers wait as well, from the beginning: a stronger lock at the end could deadlock with them, after all that work.
_LOCK = f"LOCK TABLE {METRICS}, {SERIES} IN ACCESS EXCLUSIVE MODE"


@contextmanager
def looking(settings: Settings) -> Iterator[SafeCursor]:
    """A cursor that reads a database of ours that is usable, on the coordinator.

    Raises:
        ConnectionFailedError: no connection.
        WorkerNodeError: this is a worker.
        MlopsDbError: the database is not at head, or not ours.
    """
    with open_cursor(settings) as cursor:
        gate.require_usable(cursor, settings.target)
        yield cursor


def change(settings: Settings, progress: Progress, steps: Callable[[Cursor], None]) -> None:
    """Take the steps in one transaction, under the run lock and with both tables locked.

    Args:
        settings: where the database is; the role owns the tables.
        progress: shows waits.
        steps: takes them; called again if it got no lock.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: somebody held a table, or the run lock, for too long; the message names who.
        StatementFailedError: the server refused.
    """
    pinned = replace(settings, lock_timeout=_LOCK_TIMEOUT_MS, statement_timeout=_STATEMENT_TIMEOUT_MS)
    with translate_statement_failures(settings), migration_connection(pinned) as connection:
        require_direct_connection(connection)
        with run_lock(connection, wait_ms=settings.lock_wait, progress=progress):
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            watch = BlockerWatch(settings, pid, progress, lock_timeout_ms=_LOCK_TIMEOUT_MS)
            with watch.running():
                with_retries(
                    lambda: _in_transaction(connection, steps),
                    position=lambda: 0,
                    blockers=lambda: watch.describe_blockers(connection),
                    retry_for_ms=settings.retry_for,
                    progress=progress,
                    unit=None,
                )


def _in_transaction(connection: Connection, steps: Callable[[Cursor], None]) -> None:
    connection.rollback()
    driver: Any = connection.connection.dbapi_connection
    try:
        with closing(driver.cursor()) as cursor:  # not a SafeCursor: Citus takes no second command beside DDL
            for statement in (f"SET LOCAL search_path = {SAFE_PATH}", _QUIET, BOUND_WAITS_ON_WORKERS, _LOCK):
                cursor.execute(statement)
            steps(cursor)
        driver.commit()
    except BaseException:
        if not driver.closed:
            driver.rollback()
        raise
