"""The batches of a run: each is a transaction that changes some rows and moves the position past them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable, QueryCanceled
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import RefusedError
from mlops_db.migration.batches.job import FIRST_SIZE, LARGEST_CHANGE, LEAST_KEY, LEAST_SIZE, REST
from mlops_db.migration.batches.positions import ARE_THERE, CREATE
from mlops_db.migration.batches.reserve import disk_reserve
from mlops_db.migration.blockers import REPORT_AFTER_S, find_open_transactions
from mlops_db.migration.guard.row_comparison import Bounds
from mlops_db.migration.guard.row_guard import ALL_ROWS
from mlops_db.migration.progress import duration
from mlops_db.migration.retry import RETRY_LONGER, with_retries
from mlops_db.revisions.tables import POSITIONS_TABLE
from mlops_db.server.failures import find_server_error
from mlops_db.server.guests import REFUSE_GUESTS

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mlops_db.migration.batches.job import Job
    from mlops_db.migration.options import Options
    from mlops_db.migration.step import RunningStep

FIRST_LOOK_S = 0.01
LAST_LOOK_S = 0.5


@dataclass
class OnlineJob:
    """A job that runs.

    Attributes:
        connection: of the run, in autocommit mode.
        step: the step that it is a part of.
        options: those of the run.
        job: what to do.
    """

    connection: Connection
    step: RunningStep
    options: Options
    job: Job

    size: int = 0  # rows of the next batch
    first: int = 0  # the position before the first batch
    position: int = 0  # the last key that is done
    last: int = 0  # the greatest key at the beginning
    changed: int = 0  # rows, also by earlier runs
    batches: int = 0  # by this one
    guarded: Any = None  # the table and the key, if rows are guarded

    def run(self) -> None:
        """Run the batches that are left.

        Raises:
            RefusedError: transactions that were open at the beginning do not end, or a batch gets no lock.
        """
        if not (self.resume() or self.begin()):
            return
        self.size = FIRST_SIZE
        if self.step.transaction.guard is not None:
            self.guarded = self.execute(self.job.find_root()).first()
        self.started = time.monotonic()
        self.started_at, self.changed_before = self.position, self.changed
        with disk_reserve(self.connection, self.last - self.first):
            with_retries(
                self.run_batches,
                position=lambda: self.batches,
                blockers=self.step.describe_blockers,
                retry_for_ms=self.options.retry_for,
                progress=self.step.progress,
                unit="batch",
            )

    def resume(self) -> bool:
        """Take the position of an earlier run; False if there is none."""
        if not self.execute(f"SELECT {ARE_THERE}").scalar_one():
            return False
        row = self.execute(
            f"SELECT p.first, p.position, p.last, p.changed_rows FROM {POSITIONS_TABLE} AS p WHERE {self.job.mine}"
        ).first()
        if row is None:
            return False
        self.first, self.position, self.last, self.changed = row
        self.step.transaction.in_batches = True
        self.step.progress.note(
            f"goes on after {self.job.key} {self.position}: {self.changed:,} rows are changed, {self.share} %"
        )
        return True

    def begin(self) -> bool:
        """Wait for open transactions, then store the last key; False if there is no row."""
        self.wait_for_open_transactions()
        first, last = self.execute(self.job.find_keys()).one()
        if first is None:
            return False
        if first == LEAST_KEY:
            raise RefusedError(
                f"{self.job.name}: {self.job.key} {first} is the least bigint, and no batch begins before it",
                hint="Give that row another key.",
            )
        self.first = self.position = first - 1
        self.last = last
        self.execute(f"{CREATE}; {self.job.store(key(self.first), key(last))}")
        return True

    def wait_for_open_transactions(self) -> None:
        """Wait until every transaction has ended that is open now: it may have written rows that are not seen yet."""
        waiting = find_open_transactions(self.connection)
        began, pause = time.monotonic(), FIRST_LOOK_S
        reported = began
        while waiting:
            names = "; ".join(one.describe(with_query=self.options.show_queries) for one in waiting.values())
            now = time.monotonic()
            if now - began > self.options.retry_for / 1000:
                raise RefusedError(
                    f"{self.job.name} waits for transactions that were open when it began, because rows of theirs "
                    f"may be still to come: {names}; nothing was changed",
                    hint=f"Let them end, or end those sessions, then run the same command. {RETRY_LONGER}",
                )
            if now - reported > REPORT_AFTER_S:
                reported = now
                self.step.progress.note("still waiting for %s", names, level=logging.WARNING, blocked_by=names)
            time.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_S)
            still = find_open_transactions(self.connection)
            waiting = {transaction: still[transaction] for transaction in waiting.keys() & still.keys()}

    def run_batches(self) -> None:
        """Run one batch after the other, each as large as fits into the time."""
        while self.position < self.last:
            began = time.monotonic()
            try:
                self.run_batch()
            except (DBAPIError, psycopg2.Error) as error:
                if not self.shrink(find_server_error(error), time.monotonic() - began):
                    raise
                continue
            took_s = time.monotonic() - began
            self.batches += 1
            wanted = self.size * self.job.target_ms / 1000 / max(took_s, 0.001)
            least = min(self.size, max(self.size // LARGEST_CHANGE, LEAST_SIZE))
            self.size = int(min(max(wanted, least), self.size * LARGEST_CHANGE))
            if self.position < self.last:
                self.report()
                time.sleep(took_s * REST)

    def run_batch(self) -> None:
        """Run one batch."""
        after, last = key(self.position), key(self.last)
        with self.step.transaction.own_transaction(self.connection):
            self.execute(REFUSE_GUESTS)  # a guest may have created something since the step began
            # Without statistics, PostgreSQL would sort all rows that are left, in each batch.
            ordered = f"SET LOCAL enable_sort = off; {self.job.find_end(after, last, str(self.size))}"
            upto = self.execute(ordered).scalar_one()
            self.execute("SET LOCAL enable_sort TO DEFAULT")
            changed = 0
            if upto is None:
                upto = self.last
            else:
                changed = self.change(upto)
            if self.execute(self.job.move(after, key(upto), str(changed))).rowcount != 1:
                raise RefusedError(
                    f"{self.job.name}: another session has moved its position; this batch was rolled back",
                    hint="Find out who else migrates this database, such as a script of --sql. Then run it again.",
                )
        self.position = upto
        self.changed += changed

    def change(self, upto: int) -> int:
        """Send the statement for the rows of a batch; returns how many it has changed."""
        transaction = self.step.transaction
        if self.guarded is not None:
            table, column = self.guarded
            transaction.bounds = Bounds(table, column, self.position, upto)
        try:
            changed: int = self.execute(self.job.statement.bind(key(self.position), key(upto))).rowcount
            return max(changed, 0)
        finally:
            transaction.bounds = ALL_ROWS

    def shrink(self, error: Exception | None, took_s: float) -> bool:
        """Take a smaller batch after one that failed; returns whether it can be tried at once."""
        if isinstance(error, (LockNotAvailable, DeadlockDetected)):
            self.size = max(self.size // LARGEST_CHANGE, 1)
            return False
        if isinstance(error, QueryCanceled) and 1000 * took_s >= self.options.statement_timeout and self.size > 1:
            self.size //= LARGEST_CHANGE
            return True
        return False

    @property
    def share(self) -> int:
        """How many per cent of the keys are done."""
        return 100 * (self.position - self.first) // max(self.last - self.first, 1)

    def report(self) -> None:
        """Show how many rows are changed, how many a second, and how long the rest takes, by the keys that are left."""
        elapsed_s = max(time.monotonic() - self.started, 0.001)
        rate = (self.changed - self.changed_before) / elapsed_s
        keys_done = max(self.position - self.started_at, 1)
        left_s = elapsed_s * (self.last - self.position) / keys_done
        self.step.progress.report(
            f"{self.changed:,} rows, {rate:,.0f} a second",
            self.position - self.first,
            self.last - self.first,
            left=f"about {duration(left_s)} left",
        )

    def execute(self, statement: str) -> Any:
        """Execute SQL as it is written."""
        return self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def key(value: int) -> str:
    """A key in SQL; in quotes, because a minus could become a part of an operator before it."""
    return f"'{value}'::bigint"
