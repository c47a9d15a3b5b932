"""The batches of a run: each one is a transaction that changes some rows and moves the position past them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from mlops_db.errors import RefusedError
from mlops_db.migration.batches.positions import ARE_THERE, CREATE, POSITIONS_TABLE
from mlops_db.migration.retry import with_retries

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mlops_db.migration.batches.statement import BatchStatement
    from mlops_db.migration.step import RunningStep

FIRST_SIZE = 1_000
LARGEST_CHANGE = 2.0
REST = 0.2  # of the time that a batch took
FIRST_LOOK_S = 0.01
LAST_LOOK_S = 0.5

# Manual, "pg_locks": every transaction holds its virtual transaction id until it ends. Autovacuum has no user.
_OPEN_TRANSACTIONS = """
    SELECT l.virtualtransaction, a.pid
      FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
     WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
       AND a.datname = pg_catalog.current_database() AND a.usesysid IS NOT NULL
     UNION ALL
    SELECT gid, 0 FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
"""


@dataclass
class BatchRun:
    """A statement that runs in batches.

    Attributes:
        connection: in autocommit mode.
        step: the step that it is part of.
        statement: what to run.
        table: whose rows are divided into batches, as SQL has it.
        key: its integer column, as SQL has it.
        target_s: how long a batch should take, in seconds.
        retry_for_ms: how long a batch is retried that gets no lock, in milliseconds.
    """

    connection: Connection
    step: RunningStep
    statement: BatchStatement
    table: str
    key: str
    target_s: float
    retry_for_ms: int

    size: int = FIRST_SIZE
    position: int = 0
    last: int = 0
    batches: int = 0

    def run(self) -> None:
        """Run the batches that are left."""
        if self.resume() or self.begin():
            with_retries(
                self.run_batches,
                position=lambda: self.batches,
                blockers=self.step.describe_blockers,
                retry_for_ms=self.retry_for_ms,
                progress=self.step.progress,
            )

    def resume(self) -> bool:
        """Take the position of an earlier run; False if there is none."""
        if not self.execute(f"SELECT {ARE_THERE}").scalar_one():
            return False
        same_tables = f"source = {self.oid(self.table)} AND target = {self.oid(self.statement.target)}"
        row = self.execute(
            f"SELECT position, last, statement, {same_tables} FROM {POSITIONS_TABLE} WHERE {self.mine}"
        ).first()
        if row is None:
            return False
        self.position, self.last, statement, same = row
        if not same:
            self.execute(f"DELETE FROM {POSITIONS_TABLE} WHERE {self.mine}")
            return False
        if statement != self.statement.text:
            raise RefusedError(
                f"revision {self.step.revision} was changed after a run of it had begun: its statement is another one",
                hint="Restore the statement.",
            )
        return True

    def begin(self) -> bool:
        """Wait for open transactions, and store the last key; False if there is no row."""
        self.wait_for_open_transactions()
        first, last = self.execute(f"SELECT min({self.key}), max({self.key}) FROM {self.table}").one()
        if first is None:
            return False
        self.position, self.last = first - 1, last
        self.execute(CREATE)
        self.connection.execute(
            text(f"""
            INSERT INTO {POSITIONS_TABLE} (revision, direction, statement, source, target, before_first, position, last)
            VALUES (:revision, :direction, :statement, {self.oid(self.table)}, {self.oid(self.statement.target)},
                    :position, :position, :last)
            """),
            {
                "revision": self.step.revision,
                "direction": self.step.direction,
                "statement": self.statement.text,
                "position": self.position,
                "last": self.last,
            },
        )
        return True

    def wait_for_open_transactions(self) -> None:
        """Wait until every transaction has ended that was open at the beginning."""
        waiting = set(self.execute(_OPEN_TRANSACTIONS).all())
        until, pause = time.monotonic() + self.retry_for_ms / 1000, FIRST_LOOK_S
        while waiting:
            if time.monotonic() > until:
                raise RefusedError(
                    f"transactions were open: {waiting}", hint="End them, then run the same command: it begins anew."
                )
            time.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_S)
            waiting &= set(self.execute(_OPEN_TRANSACTIONS).all())

    def run_batches(self) -> None:
        """Run one batch after the other."""
        while self.position < self.last:
            began = time.monotonic()
            with self.step.transaction.own_transaction(self.connection):
                upto = self.execute(
                    f"SELECT max(k) FROM (SELECT {self.key} AS k FROM {self.table}"
                    f" WHERE {self.key} > {literal(self.position)} AND {self.key} <= {literal(self.last)}"
                    f" ORDER BY {self.key} LIMIT {self.size}) AS batch"
                ).scalar_one()
                if upto is None:
                    upto, changed = self.last, 0
                else:
                    changed = self.execute(self.statement.bind(literal(self.position), literal(upto))).rowcount
                self.execute(
                    f"UPDATE {POSITIONS_TABLE} SET position = {upto}, changed_rows = changed_rows + {changed},"
                    f" moved_at = pg_catalog.clock_timestamp() WHERE {self.mine}"
                )
            self.position = upto
            self.batches += 1
            took = time.monotonic() - began
            change = self.target_s / max(took, 0.001)
            self.size = max(1, int(self.size * min(max(change, 1 / LARGEST_CHANGE), LARGEST_CHANGE)))
            if self.position < self.last:
                time.sleep(took * REST)

    @property
    def mine(self) -> str:
        """SQL: the position of this revision and direction."""
        return f"revision = '{self.step.revision}' AND direction = '{self.step.direction}'"

    def oid(self, name: str) -> str:
        """SQL: the oid of a table."""
        return "pg_catalog.to_regclass('{}')::oid".format(name.replace("'", "''"))

    def execute(self, statement: str) -> Any:
        """Execute SQL as it is written."""
        return self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def literal(key: int) -> str:
    """A key in SQL; in quotes, because a minus could become a part of an operator before it."""
    return f"'{key}'::bigint"
