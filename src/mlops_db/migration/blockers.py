"""A second pair of eyes on a run: who blocks it, and how far the server is with a long command.

A thread with a connection of its own looks at the run's backend a few times a second, from the first moment that takes
longer than usual: a quick run never opens that connection.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.errors import MlopsDbError
from mlops_db.migration.progress import duration
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.migration.progress import Progress
    from mlops_db.settings import Settings

LOOK_EVERY_S = 0.25
TELL_AFTER_S = 5.0


def _shown(oid: str) -> str:
    """SQL for a relation's name, as people know it."""
    return rf"regexp_replace({oid}::regclass::text, '^public\.', '')"


_BLOCKERS = f"""
    SELECT blocker.pid,
           coalesce(nullif(a.application_name, ''), 'no application name'),
           a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float,
           (SELECT coalesce({_shown("l.relation")}, l.locktype)
              FROM pg_locks AS l WHERE l.pid = me.pid AND NOT l.granted LIMIT 1),
           a.query
      FROM pg_stat_activity AS me
     CROSS JOIN LATERAL unnest(pg_blocking_pids(me.pid)) AS blocker (pid)
      LEFT JOIN pg_stat_activity AS a ON a.pid = blocker.pid
     WHERE me.pid = %(pid)s AND me.wait_event_type = 'Lock'
"""

# The views of the manual's chapter "Progress Reporting" that a revision's commands show up in.
_REPORTS = f"""
    SELECT 'CREATE INDEX ' || coalesce({_shown("index_relid")}, ''), phase,
           CASE WHEN tuples_total > 0 THEN tuples_done ELSE blocks_done END,
           CASE WHEN tuples_total > 0 THEN tuples_total ELSE blocks_total END
      FROM pg_stat_progress_create_index WHERE pid = %(pid)s
    UNION ALL
    SELECT command || ' ' || {_shown("relid")}, phase, heap_blks_scanned, heap_blks_total
      FROM pg_stat_progress_cluster WHERE pid = %(pid)s
    UNION ALL
    SELECT 'VACUUM ' || {_shown("relid")}, phase, heap_blks_scanned, heap_blks_total
      FROM pg_stat_progress_vacuum WHERE pid = %(pid)s
    UNION ALL
    SELECT 'ANALYZE ' || {_shown("relid")}, phase, sample_blks_scanned, sample_blks_total
      FROM pg_stat_progress_analyze WHERE pid = %(pid)s
"""


@dataclass(frozen=True)
class Blocker:
    """A session that a revision waits for.

    Attributes:
        pid: its process id on the server; 0 for a prepared transaction.
        application: its application_name.
        state: such as `idle in transaction`; None if this role may not see it.
        transaction_age_s: seconds since its transaction began; None if this role may not see it.
        relation: what the revision wants to lock.
        query: the last query of the blocker.
    """

    pid: int
    application: str
    state: str | None
    transaction_age_s: float | None
    relation: str | None
    query: str | None

    def told(self, *, with_query: bool) -> str:
        """The blocker in one line; its query only on request, because a query can hold data."""
        if self.pid == 0:
            return f"a prepared transaction holds {self.relation} (see pg_prepared_xacts)"
        age = "" if self.transaction_age_s is None else f", in a transaction for {duration(self.transaction_age_s)}"
        query = f": {' '.join((self.query or '').split())}" if with_query else ""
        return (
            f"pid {self.pid} ({self.application}, {self.state or 'state not visible'}{age}) on {self.relation}{query}"
        )


class Watch:
    """The last blockers of one backend, seen from outside."""

    def __init__(self, settings: Settings, pid: int, progress: Progress, *, lock_timeout_ms: int) -> None:
        """Take what the thread needs.

        Args:
            settings: where to connect.
            pid: the run's backend.
            progress: told what is seen.
            lock_timeout_ms: the run's lock_timeout; the thread looks at least three times within it.
        """
        self._settings = settings
        self._pid = pid
        self._progress = progress
        self._pause_s = min(LOOK_EVERY_S, lock_timeout_ms / 3000)
        self._stopped = threading.Event()
        self._blockers: tuple[Blocker, ...] = ()
        self._lock = threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the block ends."""
        thread = threading.Thread(target=self._run, name="mlops-db-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def take_blockers(self) -> tuple[Blocker, ...]:
        """Who was seen to block the backend last, and forget it."""
        with self._lock:
            blockers, self._blockers = self._blockers, ()
        return blockers

    def _run(self) -> None:
        if self._stopped.wait(self._pause_s):
            return
        try:
            with open_cursor(self._settings, application_name="mlops-db watch", autocommit=True) as cursor:
                # What a session does is shown to the role that it logged in as, not to the one that it became.
                cursor.execute("SET ROLE NONE; SET statement_timeout = '2s'")
                self._look(cursor)
        except MlopsDbError as error:
            self._progress.note(f"not watching any more, blockers and progress are not shown: {error}")

    def _look(self, cursor: Cursor) -> None:
        waiting_since: float | None = None
        while not self._stopped.wait(self._pause_s):
            cursor.execute(_BLOCKERS, {"pid": self._pid})
            seen = (Blocker(*row) for row in cursor.fetchall())
            # One without a relation has just let go.
            blockers = tuple(blocker for blocker in seen if blocker.relation is not None)
            if not blockers:
                waiting_since = None
                self._report(cursor)
                continue
            with self._lock:
                self._blockers = blockers
            now = time.monotonic()
            if waiting_since is None:
                waiting_since = now
            elif now - waiting_since >= TELL_AFTER_S:
                waiting_since = now
                for blocker in blockers:
                    self._progress.note(f"still waiting for {blocker.told(with_query=False)}")

    def _report(self, cursor: Cursor) -> None:
        cursor.execute(_REPORTS, {"pid": self._pid})
        row = cursor.fetchone()
        if row is not None:
            command, phase, done, total = row
            self._progress.server_reports(f"{command}: {phase}", done or 0, total or 0)
