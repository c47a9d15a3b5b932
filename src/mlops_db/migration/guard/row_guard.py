"""Watches what a downgrade does to rows, and refuses a statement that would lose any, before its transaction commits.

PostgreSQL counts for each table what a transaction inserts, updates and deletes, also through a function, a rule or a
foreign key. A table that was dropped is gone from the catalogue, and one that was emptied or rewritten has another
file. So a look at the tables after each statement shows whether it removed anything. If it did, the guard takes the
statement back, by its savepoint; measures what it would remove while that is still there, under a lock that keeps
others from writing; and sends the statement once more. Only such a statement costs more than the look.

A row is not lost if its table, or one that this downgrade has filled, holds an equal row afterwards. A value is not
lost if a column that this downgrade has added to the table holds the same. A table that has been copied while others
used it is compared with its copy by numbers: see `table_copies`.

With `-x backup` the run backs tables up at the beginning of the downgrade's transaction, and the guard spares these. If
it finds a loss in others, it says which tables to back up, so that the run can try again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from mlops_db.errors import DataLossError
from mlops_db.migration.guard.row_comparison import (
    Bounds,
    comparable,
    count_missing_rows,
    count_values,
    select_rows,
)
from mlops_db.migration.guard.row_values import holds_own_value, rows_in_words
from mlops_db.migration.guard.shard_writes import ShardWrites
from mlops_db.migration.guard.table_changes import Harm, find_harm, query_value, read_tables
from mlops_db.migration.guard.table_copies import TABLE_COPIES, find_gap, read_copies
from mlops_db.migration.statements import is_savepoint, is_update

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from mlops_db.migration.guard.table_changes import Column, Table, Tables
    from mlops_db.migration.guard.table_copies import TableCopy

SAVEPOINT = "mlops_db_guard"
_BATCH = "mlops_db_batch"  # a temporary table
ALL_ROWS = Bounds()
_POLL_S = 0.01
_SHORTEST_MS = 1
# Where a backup of the run's own would not help.
UNSEEN_HINT = "take a backup with pg_dump while nobody writes, and use -x allow-data-loss=true."
# How long the rows may be counted for a refusal, under the lock that the downgrade has by then.
COUNT_TIMEOUT = "2s"

# Whether others use the tables, and whether one of them has read one and waits for us to write it.
_OTHERS = """
    WITH others AS (SELECT pid, relation, granted FROM pg_locks
                     WHERE relation = ANY (ARRAY[{oids}]::oid[]) AND pid <> pg_backend_pid())
    SELECT ARRAY[EXISTS (SELECT FROM others WHERE granted),
                 EXISTS (SELECT FROM others AS has JOIN others AS waits USING (pid, relation)
                          WHERE has.granted AND NOT waits.granted)]
"""
# The commit reads a cursor WITH HOLD to its end, and a function in its query may delete.
_READ_BY_COMMIT = "SELECT EXISTS (SELECT FROM pg_cursors WHERE is_holdable AND creation_time >= now())"
_LOCK_TIMEOUT_MS = "SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'"


# The root of the tables that lose it, and what it is in the words of a message.
Lost = tuple[int, str]


class RowGuard:
    """Runs the statements of one downgrade, and refuses those that would lose rows.

    Attributes:
        unsaved: after a refusal, the oids of the tables whose backup would allow the downgrade; empty if none would,
            because the transaction that locks out their writers is over.
    """

    def __init__(
        self,
        driver: Any,
        revision: str,
        *,
        keep_readers_out: bool,
        backed_up: Collection[int] | None = None,
        on_citus: bool = False,
    ) -> None:
        """Prepare to guard a downgrade.

        Args:
            driver: psycopg2's connection of the run.
            revision: the id of the revision that is taken back.
            keep_readers_out: whether to keep readers, too, from a table while it is measured: on a second attempt,
                after the first one did not get its lock.
            backed_up: the oids of the tables that are in a backup, and locked against writers until this transaction
                ends; None if the run makes no backups.
            on_citus: whether the database has Citus.
        """
        self.unsaved: set[int] = set()
        self._makes_backups = backed_up is not None
        self._backed_up = frozenset(backed_up or ())
        self._cursor = psycopg2.extensions.cursor(driver)
        self._revision = revision
        self._shards = ShardWrites(self._cursor) if on_citus else None
        self._keeps_readers_out = keep_readers_out
        self._before_downgrade: Tables = {}
        self._before_transaction: Tables = {}
        self._now: Tables = {}
        self._copies_before: set[TableCopy] = set()  # registered before this downgrade
        self._copies: set[TableCopy] = set()  # those of them that still are
        self._filled_before: set[int] = set()  # by committed transactions of this downgrade
        # The tables that hold rows of others, by their oids, with the roots of those others.
        self._relied_on: dict[int, set[int]] = {}
        self._relied_on_columns: set[tuple[int, int]] = set()
        self._transactions = 0
        self._lost: set[int] = set()  # roots
        self._refusal: DataLossError | None = None

    def begin(self) -> None:
        """Look at the tables, at the beginning of a transaction.

        Raises:
            DataLossError: the server does not count what transactions do.
        """
        if query_value(self._cursor, "SHOW track_counts") != "on":
            raise DataLossError(
                "track_counts is off on this server, so the run cannot see whether this downgrade loses rows; revision "
                f"{self._revision} was not reverted",
                hint=f"Let a superuser set track_counts = on. Or {UNSEEN_HINT}",
            )
        if self._shards is not None:
            self._shards.begin()
        if self._transactions:  # the lock on the tables has ended with the transaction before this one
            self._backed_up = frozenset()
        now, _ = self._read()
        self._before_transaction = now
        if not self._before_downgrade:
            self._before_downgrade = now
            self._copies_before = {copied for copied in read_copies(self._cursor) if copied.copy in now}
        self._keep(now)
        self._transactions += 1

    def _read(self) -> tuple[Tables, set[int]]:
        """Read the tables, and which of them this transaction has locked exclusively."""
        if self._shards is None:
            return read_tables(self._cursor)
        tables, locked = read_tables(self._cursor, on_citus=True)
        return self._shards.counted(tables), locked

    def run(
        self,
        statement: str,
        send: Callable[[], None],
        *,
        only_once: bool = False,
        bounds: Bounds = ALL_ROWS,
        changed: Callable[[], int] = lambda: 0,
    ) -> None:
        """Run a statement, twice if need be.

        Args:
            statement: its text.
            send: sends it.
            only_once: whether it cannot be sent twice, as COPY, which has read its file by then. It may not remove
                anything.
            bounds: of the rows that it removes or changes, if it is a batch.
            changed: how many rows it has changed, as the server said.

        Raises:
            DataLossError: the statement would lose rows or values, and was taken back.
        """
        if self._shards is not None:
            send = self._counting(statement, send, changed)
        if is_savepoint(statement):  # the revision's own, which must not end with one around it
            send()
            now, _ = self._read()  # rows that are back may be removed again
            self._keep(now)
            return
        updates = is_update(statement)
        self._cursor.execute(f"SAVEPOINT {SAVEPOINT}")
        send()
        after, locked = self._read()
        harm = self._find_harm(self._now, after, locked, updates=updates)
        if harm:
            self._cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
            if self._shards is not None:
                self._shards.roll_back()
            try:
                if only_once:
                    self._refuse_unknown(harm)
                self._measure_and_repeat(harm, after, send, updates=updates, bounds=bounds)
            except DataLossError:  # nothing of it may be left, in a caller's transaction either
                self._note_unsaved(harm)
                self._cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
                raise
        self._cursor.execute(f"RELEASE SAVEPOINT {SAVEPOINT}")
        if harm:  # a TRUNCATE resets the counters when its savepoint is released
            after, _ = self._read()
        self._keep(after)

    def _counting(self, statement: str, send: Callable[[], None], changed: Callable[[], int]) -> Callable[[], None]:
        """The same sending, which also counts what the statement does to rows in shards."""

        def send_and_count() -> None:
            assert self._shards is not None
            send()
            unknown = self._shards.count(statement, changed(), self._now)
            self._refuse_unknown(unknown)

        return send_and_count

    def finish(self) -> None:
        """Check the effects of the commit itself, and of statements that did not come through `run`.

        Raises:
            DataLossError: rows would be lost, or the run cannot see it; also if the revision has caught that error
                before.
        """
        if self._refusal is not None:
            raise self._refusal
        after, locked = self._read()
        harm = self._find_harm(self._now, after, locked)
        try:
            self._refuse_unknown(harm)
        except DataLossError:
            self._note_unsaved(harm)
            raise
        everything_now = "SET CONSTRAINTS ALL IMMEDIATE"  # a deferred trigger may delete, too
        self.run(everything_now, lambda: self._cursor.execute(everything_now))
        if query_value(self._cursor, _READ_BY_COMMIT):
            refusal = DataLossError(
                f"revision {self._revision} leaves a cursor WITH HOLD open in its downgrade, and the commit would read "
                "it, so the run cannot see whether rows are lost; it was not reverted",
                hint=f"Close the cursor in downgrade(). Or {UNSEEN_HINT}",
            )
            self._raise(refusal)
        self._filled_before |= self._inserted_into(self._now)

    def _keep(self, tables: Tables) -> None:
        """Keep the tables as they are before the next statement."""
        self._now = tables
        if self._copies_before:
            self._copies = self._copies_before & read_copies(self._cursor)

    def _find_harm(
        self, before: Tables, after: Tables, locked: Collection[int], *, updates: bool = False
    ) -> dict[int, Harm]:
        """What happened between two looks, by root, to tables that were there before this downgrade.

        Args:
            before: the tables at the first look.
            after: the tables at the second look.
            locked: which of them this transaction has locked exclusively.
            updates: whether the statement was an UPDATE.
        """
        guarded = self._before_downgrade.keys() | self._relied_on.keys()
        guarded |= {table.root for table in before.values() if table.oid in guarded}
        spared = self._backed_up - self._relied_on.keys()
        harm: dict[int, Harm] = {}
        for table in before.values():
            if table.oid not in spared and not guarded.isdisjoint((table.oid, table.root)):
                harm.setdefault(table.root, Harm()).add(
                    find_harm(self._cursor, self._protected(table), after.get(table.oid), locked)
                )
        for root, done in harm.items():
            # An UPDATE that moves rows to another partition counts as DELETE and INSERT there.
            is_partitioned = root in self._now and not self._now[root].file
            if updates and done.deleted and is_partitioned and done.inserted >= done.deleted:
                done.updated, done.deleted, done.values = done.updated + done.deleted, 0, True
        harm = {root: done for root, done in harm.items() if done and not self._is_register(root)}
        # The rows of a copy are also in its source, unless this downgrade has moved rows from there.
        harmless = {
            oid
            for copied in self._copies
            if copied.source in after
            for oid in (copied.copy, copied.changes)
            if oid not in self._relied_on
        }
        return {root: done for root, done in harm.items() if root not in harmless}

    def _is_register(self, root: int) -> bool:
        """Whether it is the register of copies, also under another name by now."""
        first = self._before_downgrade.get(root)
        return first is not None and first.sql == TABLE_COPIES

    def _measure_and_repeat(
        self,
        harm: Mapping[int, Harm],
        after_first: Tables,
        send: Callable[[], None],
        *,
        updates: bool,
        bounds: Bounds,
    ) -> None:
        """Measure what the statement will remove, send it again, and compare."""
        self._refuse_vanished(harm)
        filled = self._filled(after_first)
        if not filled:  # then the rows cannot be anywhere else, and those that were deleted have been counted
            self._refuse(
                (root, f"{rows_in_words(done.deleted)} of {self._name(root)}")
                for root, done in harm.items()
                if done.deleted and not done.whole
            )
        self._lock_out_writers(harm)
        before, _ = self._read()
        self._refuse_hidden(before, harm)
        bounds = self._usable(bounds, harm)
        self._note_batch(before, bounds)
        values = {
            root: self._count_values(before[root], done, bounds.of(root).where)
            for root, done in harm.items()
            if done.values or done.gone
        }
        removed = {root: tables for root, done in harm.items() if (tables := self._with_rows(before, root, done))}
        swapped = self._swapped(removed, after_first)
        for copied in swapped:
            removed.pop(copied.source, None)
        self._refuse(
            (copied.source, f"rows of {self._name(copied.source)}, {gap}")
            for copied in swapped
            if (gap := find_gap(self._cursor, copied, before))
        )
        if not filled:
            self._refuse((root, f"{self._count(tables)} of {self._name(root)}") for root, tables in removed.items())
        inserts = any(
            oid not in self._now or table.inserted > self._now[oid].inserted for oid, table in after_first.items()
        )
        losses = self._values_of_dropped_columns(harm, values)
        copies = {}
        for root, tables in removed.items():
            rows = select_rows(tables, bounds.of(root).where)
            if inserts or harm[root].deleted or root in filled or tables[0].in_shards:
                copies[root] = f"pg_temp.mlops_db_rows_{root}"
                self._cursor.execute(f"CREATE TEMPORARY TABLE mlops_db_rows_{root} ON COMMIT DROP AS {rows}")
            else:
                losses += self._missing(root, rows, tables[0], [before[oid] for oid in filled if oid in before])
        self._refuse(losses)
        self._lock_out_readers(harm)
        send()
        after, locked = self._read()
        done_now = self._find_harm(before, after, locked, updates=updates)
        self._refuse_beyond(after, bounds, done_now)
        losses += self._unforeseen(harm, done_now)
        losses += self._unforeseen(done_now, harm)  # if it did not do this the second time, something unseen did it
        filled = self._filled(after)  # a table that the statement creates has another oid each time
        for root, copy in copies.items():
            holders = [after[oid] for oid in sorted({*filled, root}) if oid in after]
            losses += self._missing(root, f"SELECT * FROM {copy}", removed[root][0], holders, bounds.of(root))
            self._cursor.execute(f"DROP TABLE {copy}")
        for root, counts in values.items():
            if harm[root].values:
                losses += self._missing_values(before, after, root, counts, bounds.of(root).where)
        self._refuse(losses)
        held = {root: set(removed) for root in filled} if removed else {}
        self._rely_on(after, {**held, **{copied.copy: {copied.source} for copied in swapped}}, harm)

    def _rely_on(self, after: Tables, held: Mapping[int, set[int]], harm: Mapping[int, Harm]) -> None:
        """Note the tables and columns that hold what a statement has removed elsewhere.

        Args:
            after: the tables after the statement.
            held: the roots that hold rows, each with the roots that they came from.
            harm: what the statement has done.
        """
        for oid, table in after.items():
            if table.root in held:
                self._relied_on.setdefault(oid, set()).update(held[table.root])
        self._relied_on_columns |= {
            (root, number)
            for root, done in harm.items()
            if done.gone and root in after
            for number in self._added(after[root])
        }

    def _swapped(self, removed: Collection[int], after: Tables) -> list[TableCopy]:
        """The copies that stay where the statement drops their source."""
        return [
            copied
            for copied in self._copies
            if copied.source in removed and copied.source not in after and copied.copy in after
        ]

    @staticmethod
    def _usable(bounds: Bounds, harm: Mapping[int, Harm]) -> Bounds:
        """The bounds, if the statement has only deleted or updated rows of their table."""
        done = harm.get(bounds.table)
        return ALL_ROWS if done is None or done.whole or done.gone else bounds

    def _note_batch(self, before: Tables, bounds: Bounds) -> None:
        """Note where the rows of a batch are: those that it updates will be elsewhere."""
        if bounds.table:
            table = before[bounds.table]
            self._cursor.execute(f"CREATE TEMPORARY TABLE {_BATCH} ON COMMIT DROP AS {self._places(table, bounds)}")

    @staticmethod
    def _places(table: Table, bounds: Bounds) -> str:
        """A query for where the rows of a batch are. Tables on two nodes of Citus can have the same oid."""
        shard = table.sharded_by or "NULL::text"
        return f"SELECT tableoid AS part, ctid AS place, {shard} AS shard FROM {table.only}{table.sql}{bounds.where}"

    def _refuse_beyond(self, after: Tables, bounds: Bounds, done: Mapping[int, Harm]) -> None:
        """Refuse a batch that has changed rows outside of its bounds, which are not measured."""
        if not bounds.table:
            return
        harm, table = done.get(bounds.table, Harm()), after[bounds.table]
        gone = f"SELECT part, place, shard FROM pg_temp.{_BATCH} EXCEPT {self._places(table, bounds)}"
        moved = query_value(self._cursor, f"SELECT count(*) FROM ({gone}) AS gone")
        self._cursor.execute(f"DROP TABLE pg_temp.{_BATCH}")
        if moved != harm.updated + harm.deleted:
            refusal = DataLossError(
                f"revision {self._revision} changes rows of {self._name(bounds.table)} outside of the bounds of its "
                "batch in its downgrade, so the run cannot see whether rows are lost; this batch was rolled back",
                hint=f"Let its statement change only rows within the bounds. Or {UNSEEN_HINT}",
            )
            self._raise(refusal)

    def _missing(
        self, root: int, rows: str, table: Table, holders: list[Table], bounds: Bounds = ALL_ROWS
    ) -> list[Lost]:
        """The loss of rows that none of the holders has."""
        missing = count_missing_rows(self._cursor, rows, table, holders, bounds)
        return [(root, f"{rows_in_words(missing)} of {self._name(root)}")] if missing else []

    def _values_of_dropped_columns(
        self, harm: Mapping[int, Harm], values: Mapping[int, Mapping[str, int]]
    ) -> list[Lost]:
        """The loss of values with their columns; known beforehand, unless the statement changes values, too."""
        return [
            (root, f"{rows_in_words(count)} of {self._name(root)}.{column}")
            for root, counts in values.items()
            if not harm[root].values
            for column, count in counts.items()
            if column and count
        ]

    def _unforeseen(self, measured: Mapping[int, Harm], done: Mapping[int, Harm]) -> list[Lost]:
        """What a statement has done that it did not do the first time."""
        return [
            (root, f"an unknown part of {self._name(root)}")
            for root, harm in done.items()
            if root not in measured or not measured[root].covers(harm)
        ]

    def _raise(self, refusal: DataLossError) -> None:
        """Refuse the downgrade; `finish` does it again if the revision catches the error."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, losses: Iterable[Lost]) -> None:
        """Refuse the downgrade if it has losses."""
        if lost := list(losses):
            self._lost |= {root for root, _ in lost}
            words = (
                f"this downgrade would lose {', '.join(what for _, what in lost)}; revision {self._revision} was not "
                "reverted"
            )
            if self._makes_backups:
                self._raise(DataLossError(words, hint=f"-x backup cannot save these: {UNSEEN_HINT}"))
            self._raise(DataLossError(f"MLOPS_ENV is production and {words}"))

    def _note_unsaved(self, harm: Mapping[int, Harm]) -> None:
        """Note which tables hold what was lost, as they are at the beginning of the downgrade."""
        if self._transactions > 1:
            return
        found: set[int] = set()
        for root in self._lost:
            done = harm.get(root, Harm(values=True))
            found |= (
                self._tables_of(root)
                if done.deleted or done.gone or done.values
                else {table.oid for table in done.whole}
            )
        holders = found
        while holders:  # their own rows may be safe: the rows of others, that they hold, are not
            held = set().union(*(self._relied_on.get(oid, set()) for oid in holders))
            holders = set().union(*map(self._tables_of, held)) - found
            found |= holders
        self.unsaved = found & self._before_downgrade.keys()

    def _tables_of(self, root: int) -> set[int]:
        """The oids of the table and its partitions, from before this downgrade and now."""
        tables = [*self._before_downgrade.values(), *self._now.values()]
        return {root} | {table.oid for table in tables if table.root == root}

    def _refuse_unknown(self, roots: Iterable[int]) -> None:
        """Refuse what cannot be measured any more."""
        self._refuse((root, f"an unknown part of {self._name(root)}") for root in roots)

    def _refuse_vanished(self, harm: Mapping[int, Harm]) -> None:
        """Refuse if a table is still gone after the statement was taken back: then something unseen dropped it."""
        there, _ = self._read()
        self._refuse_unknown(
            root for root, done in harm.items() if not there.keys() >= {root, *(table.oid for table in done.whole)}
        )

    def _refuse_hidden(self, before: Tables, harm: Mapping[int, Harm]) -> None:
        """Refuse if row level security hides rows of a table that has to be read whole."""
        read_whole = {oid for root, done in harm.items() for oid in (root, *(table.oid for table in done.whole))}
        self._refuse(
            (table.root, f"rows of {self._name(table.root)}, which cannot be counted behind {table.hidden_by}")
            for oid in sorted(read_whole)
            if (table := before.get(oid)) is not None and table.hidden_by
        )

    def _filled(self, tables: Tables) -> set[int]:
        """The roots of the tables that this downgrade has inserted into."""
        filled = self._filled_before | self._inserted_into(tables)
        return {table.root for oid, table in tables.items() if oid in filled}

    def _inserted_into(self, tables: Tables) -> set[int]:
        """The tables that this transaction has inserted into; the counters may still include the last transaction."""
        first = self._before_transaction
        return {oid for oid, table in tables.items() if table.inserted > (first[oid].inserted if oid in first else 0)}

    def _protected(self, table: Table) -> Table:
        """The table with the columns that were there before this downgrade, or are relied on, and the defaults of then.

        A default that the downgrade sets does not bring back values that others have written.
        """
        added = self._added(table)
        first = self._before_downgrade[table.oid].columns if table.oid in self._before_downgrade else {}
        columns = {
            number: replace(column, default=first[number].default if number in first else None)
            for number, column in table.columns.items()
            if number not in added or (table.oid, number) in self._relied_on_columns
        }
        return replace(table, columns=columns)

    def _added(self, table: Table) -> dict[int, Column]:
        """The columns that this downgrade has added to a table that was there before."""
        first = self._before_downgrade.get(table.oid, table).columns
        return {number: column for number, column in table.columns.items() if number not in first}

    def _name(self, root: int) -> str:
        """A table's name for people: the one that it had before this downgrade."""
        return (self._before_downgrade.get(root) or self._now[root]).shown

    def _tables_to_lock(self, root: int, done: Harm) -> list[Table]:
        """The tables as they are before the statement."""
        return [self._now[root]] if done.deleted or done.gone or done.values else done.whole

    def _lock_out_writers(self, harm: Mapping[int, Harm]) -> None:
        """Keep others from writing to the tables while they are measured; on a second attempt from reading, too."""
        for root, done in harm.items():
            mode = "ACCESS EXCLUSIVE" if done.locks and self._keeps_readers_out else "SHARE ROW EXCLUSIVE"
            for table in self._tables_to_lock(root, done):
                self._cursor.execute(f"LOCK TABLE {table.only}{table.sql} IN {mode} MODE")

    def _lock_out_readers(self, harm: Mapping[int, Harm]) -> None:
        """Get the statement's own lock as soon as nobody reads, without waiting for it.

        A session that has read the table and then wants to write it waits for us. If we waited for it, too, PostgreSQL
        would end its transaction at once.
        """
        tables = [table for root, done in harm.items() if done.locks for table in self._tables_to_lock(root, done)]
        if self._keeps_readers_out or not tables:
            return
        lock = f"LOCK TABLE {', '.join(f'{table.only}{table.sql}' for table in tables)} IN ACCESS EXCLUSIVE MODE"
        roots = {table.oid for table in tables}
        oids = ", ".join(
            str(table.oid) for table in self._now.values() if not roots.isdisjoint((table.oid, table.root))
        )
        timeout = query_value(self._cursor, _LOCK_TIMEOUT_MS)
        deadline = time.monotonic() + timeout / 1000
        while not self._try(f"{lock} NOWAIT"):
            in_use, waits_for_us = query_value(self._cursor, _OTHERS.format(oids=oids))
            # Before PostgreSQL 18 NOWAIT gives up if a writer waits behind our first lock; a wait goes ahead of it.
            if not in_use and self._try(f"SET LOCAL lock_timeout = {_SHORTEST_MS}; {lock}"):
                break
            if waits_for_us or time.monotonic() > deadline:
                self._cursor.execute(f"{lock} NOWAIT")
                break
            time.sleep(_POLL_S)
        self._cursor.execute(f"SET LOCAL lock_timeout = {timeout}")

    def _try(self, lock: str) -> bool:
        """Whether the lock is free and now ours."""
        self._cursor.execute("SAVEPOINT mlops_db_lock")
        try:
            self._cursor.execute(lock)
        except psycopg2.errors.LockNotAvailable:
            self._cursor.execute("ROLLBACK TO SAVEPOINT mlops_db_lock")
            return False
        return True

    def _with_rows(self, before: Tables, root: int, done: Harm) -> list[Table]:
        """The tables whose rows may go, without the empty ones."""
        of_root = [table for table in before.values() if table.root == root and table.file]
        tables = map(self._protected, of_root if done.deleted else done.whole)
        return [
            table for table in tables if query_value(self._cursor, f"SELECT EXISTS (SELECT 1 FROM ONLY {table.sql})")
        ]

    def _count(self, tables: list[Table]) -> str:
        """The number of rows in words, estimated if counting takes too long."""
        try:
            self._cursor.execute(f"SAVEPOINT mlops_db_count; SET LOCAL statement_timeout = '{COUNT_TIMEOUT}'")
            return rows_in_words(
                sum(query_value(self._cursor, f"SELECT count(*) FROM ONLY {table.sql}") for table in tables)
            )
        except psycopg2.errors.QueryCanceled:
            self._cursor.execute("ROLLBACK TO SAVEPOINT mlops_db_count")
            oids = ", ".join(str(table.oid) for table in tables)
            estimate = query_value(
                self._cursor,
                "SELECT sum(greatest(reltuples, pg_stat_get_live_tuples(oid), 1))::bigint"
                f" FROM pg_class WHERE oid IN ({oids})",
            )
            return f"about {rows_in_words(estimate)}"

    def _count_values(self, table: Table, done: Harm, where: str) -> dict[str, int]:
        """Count the rows, under an empty name, and in each column those that hold a value of their own."""
        added = self._added(table)
        conditions = {}
        for number, column in self._protected(table).columns.items():
            condition = holds_own_value(column.name, column.default)
            for other in added.values() if number in done.gone else ():
                if other.name != column.name:
                    kinds = {column.kind, other.kind}
                    here, there = (comparable(each.name, each.kind, kinds) for each in (column, other))
                    condition += f" AND {here} IS DISTINCT FROM {there}"
            if number in done.gone or done.values:
                conditions[column.name] = condition
        return count_values(self._cursor, table, conditions, where)

    def _missing_values(
        self, before: Tables, after: Tables, root: int, counted: Mapping[str, int], where: str
    ) -> list[Lost]:
        """The loss of values: of which there are fewer than were counted."""
        if root not in after:
            return []
        names = {number: column.name for number, column in before[root].columns.items()}
        now = {number: column for number, column in self._protected(after[root]).columns.items() if number in names}
        conditions = {column.name: holds_own_value(column.name, column.default) for column in now.values()}
        counts = count_values(self._cursor, after[root], conditions, where)
        found = {names[number]: counts[column.name] for number, column in now.items()} | {"": counts[""]}
        return [
            (root, f"{rows_in_words(fewer)} of {self._name(root)}{f'.{name}' if name else ''}")
            for name, count in counted.items()
            if (fewer := count - found.get(name, 0)) > 0
        ]
