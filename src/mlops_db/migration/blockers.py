"""Shows who blocks a run, and the server's progress with a long command.

A thread with a connection of its own looks at the run's backend a few times a second. It connects only once a step
takes longer than that, so a run of quick steps never opens that connection.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.errors import MlopsDbError
from mlops_db.migration.progress import duration
from mlops_db.migration.shard_holders import find_shard_holders
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.migration.progress import Progress
    from mlops_db.settings import Settings

LOOK_EVERY_S = 0.25
REPORT_AFTER_S = 5.0
NOBODY = "nobody seen"


def _name(oid: str) -> str:
    """SQL for a relation's name, without the schema public."""
    return rf"regexp_replace({oid}::regclass::text, '^public\.', '')"


_BLOCKERS = f"""
    SELECT blocker.pid,
           coalesce(nullif(a.application_name, ''), 'no application name'),
           a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float,
           (SELECT coalesce({_name("l.relation")}, l.locktype)
              FROM pg_locks AS l WHERE l.pid = me.pid AND NOT l.granted LIMIT 1),
           a.query
      FROM pg_stat_activity AS me
     CROSS JOIN LATERAL unnest(pg_blocking_pids(me.pid)) AS blocker (pid)
      LEFT JOIN pg_stat_activity AS a ON a.pid = blocker.pid
     WHERE me.pid = %(pid)s AND me.wait_event_type = 'Lock'
"""

# Every transaction holds a lock on its virtual id until it ends (manual, "pg_locks"), and autovacuum has no user. Only
# its pid and its application_name are visible to every role.
OPEN_TRANSACTIONS = """
    SELECT l.virtualtransaction AS transaction, a.pid,
           coalesce(nullif(a.application_name, ''), 'no application name') AS application, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float AS age_s, a.query,
           'pid ' || a.pid::text || ' (' || coalesce(a.application_name, '') || ')' AS name
      FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
     WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
       AND a.datname = current_database() AND a.usesysid IS NOT NULL
     UNION ALL
    SELECT x.gid, 0, x.gid, NULL, NULL, NULL, 'the prepared transaction ' || quote_literal(x.gid)
      FROM pg_prepared_xacts AS x WHERE x.database = current_database()
"""

# The views of the manual's chapter "Progress Reporting" that show the commands of revisions.
_REPORTS = f"""
    SELECT 'CREATE INDEX ' || coalesce({_name("index_relid")}, ''), phase,
           CASE WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END,
           CASE WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END
      FROM pg_stat_progress_create_index WHERE pid = %(pid)s
    UNION ALL
    SELECT command || ' ' || {_name("relid")}, phase, heap_blks_scanned, heap_blks_total
      FROM pg_stat_progress_cluster WHERE pid = %(pid)s
    UNION ALL
    SELECT 'VACUUM ' || {_name("relid")}, phase, heap_blks_scanned, heap_blks_total
      FROM pg_stat_progress_vacuum WHERE pid = %(pid)s
    UNION ALL
    SELECT 'ANALYZE ' || {_name("relid")}, phase, sample_blks_scanned, sample_blks_total
      FROM pg_stat_progress_analyze WHERE pid = %(pid)s
"""


@dataclass(frozen=True)
class Blocker:
    """A session that a revision waits for.

    Attributes:
        pid: its process id on the server; 0 for a prepared transaction.
        application: its application_name; the name of a prepared transaction, if it is known.
        state: such as `idle in transaction`; None if this role may not see it.
        transaction_age_s: seconds since its transaction began; None if this role may not see it.
        relation: what the revision wants to lock; None if it waits for the end of the transaction.
        query: the last query of the blocker.
    """

    pid: int
    application: str
    state: str | None
    transaction_age_s: float | None
    relation: str | None
    query: str | None

    def describe(self, *, with_query: bool) -> str:
        """The blocker in one line; its query only on request, because a query can hold data."""
        place = "" if self.relation is None else f" on {self.relation}"
        if self.pid == 0 and self.relation is None:
            return f"the prepared transaction {self.application!r}"
        if self.pid == 0:
            return f"a prepared transaction holds {self.relation} (see pg_prepared_xacts)"
        age = "" if self.transaction_age_s is None else f", in a transaction for {duration(self.transaction_age_s)}"
        query = f": {' '.join((self.query or '').split())}" if with_query else ""
        return f"pid {self.pid} ({self.application}, {self.state or 'state not visible'}{age}){place}{query}"


def find_open_transactions(connection: Connection) -> dict[str, Blocker]:
    """The transactions of others that are open in this database, by an id that no later one has."""
    rows = connection.exec_driver_sql(OPEN_TRANSACTIONS, execution_options={"no_parameters": True})
    return {
        transaction: Blocker(pid, application, state, age_s, None, query)
        for transaction, pid, application, state, age_s, query, _ in rows
    }


class BlockerWatch:
    """Finds the blockers of one backend, from another connection."""

    def __init__(
        self, settings: Settings, pid: int, progress: Progress, *, lock_timeout_ms: int, show_queries: bool = False
    ) -> None:
        """Prepare the thread.

        Args:
            settings: where to connect.
            pid: the run's backend.
            progress: shows what the thread finds.
            lock_timeout_ms: the run's lock_timeout; the thread looks at least three times within it.
            show_queries: whether `describe_blockers` has the blockers' queries, which can contain data.
        """
        self._settings = settings
        self._pid = pid
        self._progress = progress
        self._show_queries = show_queries
        self._pause_s = min(LOOK_EVERY_S, lock_timeout_ms / 3000)
        self._stopped = threading.Event()
        self._blockers: tuple[Blocker, ...] = ()
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the thread until the block ends."""
        thread = threading.Thread(target=self._run, name="mlops-db-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def describe_blockers(self, connection: Connection) -> str:
        """The blockers that were found last, which are then forgotten; if there were none, who holds shards now.

        Args:
            connection: the backend's, after an attempt that got no lock; outside of a transaction, or in one that
                has failed.
        """
        with self._lock:
            blockers, self._blockers = self._blockers, ()
        seen = "; ".join(blocker.describe(with_query=self._show_queries) for blocker in blockers)
        return seen or find_shard_holders(connection) or NOBODY

    def _run(self) -> None:
        begun = time.monotonic()
        while (left := max(begun, self._progress.step_begun) + self._pause_s - time.monotonic()) > 0:
            if self._stopped.wait(left):
                return
        try:
            with open_cursor(self._settings, application_name="mlops-db watch", autocommit=True) as cursor:
                # A session's activity is visible to the role that it logged in as, not to the owner role.
                cursor.execute("SET ROLE NONE; SET statement_timeout = '2s'")
                self._look(cursor)
        except MlopsDbError as error:
            self._progress.note("blockers and progress are not shown any more: %s", error, level=logging.WARNING)

    def _look(self, cursor: Cursor) -> None:
        waiting_since: float | None = None
        while not self._stopped.wait(self._pause_s):
            cursor.execute(_BLOCKERS, {"pid": self._pid})
            rows = (Blocker(*row) for row in cursor.fetchall())
            blockers = tuple(blocker for blocker in rows if blocker.relation is not None)  # others have just let go
            if not blockers:
                waiting_since = None
                self._report_progress(cursor)
                continue
            with self._lock:
                self._blockers = blockers
            now = time.monotonic()
            if waiting_since is None:
                waiting_since = now
            elif now - waiting_since >= REPORT_AFTER_S:
                waiting_since = now
                for name in (blocker.describe(with_query=False) for blocker in blockers):
                    self._progress.note("still waiting for %s", name, level=logging.WARNING, blocked_by=name)

    def _report_progress(self, cursor: Cursor) -> None:
        cursor.execute(_REPORTS, {"pid": self._pid})
        row = cursor.fetchone()
        if row is not None:
            command, phase, done, total = row
            self._progress.report(f"{command}: {phase}", done or 0, total or 0)
