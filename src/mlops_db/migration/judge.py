"""What a downgrade does to rows, judged in its own transaction before that commits, whatever its SQL says.

PostgreSQL counts for each table what a transaction inserts, updates and deletes, whoever wrote the statement: a
function, a rule, a foreign key. A table that was dropped is gone from the catalogue, and one that was emptied or
rewritten has another file. So one look after each statement of the revision tells whether it took anything away. If it
did, the statement is taken back, by its savepoint; what it would take is measured while it is still there, under a lock
that keeps others from writing; and the statement is sent once more. Only such a statement costs more than the look.

A row is not lost if its table, or one that this downgrade has filled, holds an equal row afterwards. A value is not
lost if a column that this downgrade has added to the table holds the same.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from mlops_db.errors import DataLossError
from mlops_db.migration.row_comparison import as_compared, count_values, missing_rows, rows_of
from mlops_db.migration.row_values import own_value, rows_in_words
from mlops_db.migration.statements import is_savepoint, is_update
from mlops_db.migration.table_changes import Harm, harm_between, look, value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from mlops_db.migration.table_changes import Column, Table, Tables

SAVEPOINT = "mlops_db_judge"
_POLL_S = 0.01
_SHORTEST_MS = 1
# How long the rows are counted that a refusal tells of, under whatever lock the downgrade has by then.
COUNT_TIMEOUT = "2s"

# Whether others use the tables, and whether one of them has read one and waits for us to write it.
_OTHERS = """
    WITH others AS (SELECT pid, relation, granted FROM pg_locks
                     WHERE relation = ANY (ARRAY[{oids}]::oid[]) AND pid <> pg_backend_pid())
    SELECT ARRAY[EXISTS (SELECT FROM others WHERE granted),
                 EXISTS (SELECT FROM others AS has JOIN others AS waits USING (pid, relation)
                          WHERE has.granted AND NOT waits.granted)]
"""
# A cursor WITH HOLD is read to its end by the commit, and what it calls may delete.
_READ_BY_COMMIT = "SELECT EXISTS (SELECT FROM pg_cursors WHERE is_holdable AND creation_time >= now())"
_LOCK_TIMEOUT_MS = "SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'"


class Judge:
    """Carries the statements of one downgrade out, and refuses what would lose rows."""

    def __init__(self, driver: Any, revision: str, *, keep_readers_out: bool) -> None:
        """Take what is judged.

        Args:
            driver: psycopg2's connection of the run.
            revision: the id of the revision that is taken back.
            keep_readers_out: whether readers, too, are kept from a table while it is measured: on a second attempt,
                after the first one did not get its lock.
        """
        self._cursor = psycopg2.extensions.cursor(driver)
        self._revision = revision
        self._readers_kept_out = keep_readers_out
        self._start: Tables = {}  # of the downgrade
        self._begin: Tables = {}  # of the transaction
        self._seen: Tables = {}
        self._filled_before: set[int] = set()  # by transactions of this downgrade that are committed
        self._relied_on: set[int] = set()
        self._relied_on_columns: set[tuple[int, int]] = set()
        self._refusal: DataLossError | None = None

    def begin(self) -> None:
        """Look at the tables, at the beginning of a transaction.

        Raises:
            DataLossError: the server does not count what transactions do.
        """
        self._cursor.execute("SHOW track_counts")
        if self._cursor.fetchone() != ("on",):
            raise DataLossError(
                "MLOPS_ENV is production and track_counts is off on this server, so nobody can tell whether this "
                f"downgrade loses rows; revision {self._revision} was not taken back",
                hint="Let a superuser set track_counts = on; or take a backup, then say -x allow-data-loss=true.",
            )
        self._seen, _ = look(self._cursor)
        self._begin = self._seen
        self._start = self._start or self._seen

    def carry_out(self, statement: str, execute: Callable[[], None], *, once: bool = False) -> None:
        """Carry a statement out, twice if need be.

        Args:
            statement: its text.
            execute: sends it.
            once: whether it cannot be sent twice, as COPY, whose file has been read then. It may not harm anything.

        Raises:
            DataLossError: rows or values would be lost by it; it has not been carried out.
        """
        if is_savepoint(statement):  # the revision's own, which must not end with one around it
            execute()
            self._seen, _ = look(self._cursor)  # what is back may be taken again
            return
        updates = is_update(statement)
        self._cursor.execute(f"SAVEPOINT {SAVEPOINT}")
        execute()
        seen, locked = look(self._cursor)
        harm = self._harm(self._seen, seen, locked, updates=updates)
        if harm:
            self._cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
            try:
                if once:
                    self._refuse_unknown(harm)
                self._once_more(harm, seen, execute, updates=updates)
            except DataLossError:  # in a transaction of its caller's, too, nothing of it is left
                self._cursor.execute(f"ROLLBACK TO SAVEPOINT {SAVEPOINT}")
                raise
        self._cursor.execute(f"RELEASE SAVEPOINT {SAVEPOINT}")
        if harm:  # a TRUNCATE sets the counters back when its savepoint is released
            seen, _ = look(self._cursor)
        self._seen = seen

    def conclude(self) -> None:
        """Judge what a commit would do besides, and what went past `carry_out`.

        Raises:
            DataLossError: rows would be lost, or nobody can tell; also if the revision has caught that error before.
        """
        if self._refusal is not None:
            raise self._refusal
        seen, locked = look(self._cursor)
        self._refuse_unknown(self._harm(self._seen, seen, locked))
        everything_now = "SET CONSTRAINTS ALL IMMEDIATE"  # a deferred trigger may delete, too
        self.carry_out(everything_now, lambda: self._cursor.execute(everything_now))
        if value(self._cursor, _READ_BY_COMMIT):
            self._refusal = DataLossError(
                f"revision {self._revision} leaves a cursor WITH HOLD, which the commit of its downgrade would read, "
                "where MLOPS_ENV=production cannot see whether rows are lost; it was not taken back"
            )
            raise self._refusal
        self._filled_before |= self._inserted_into(self._seen)

    def _harm(
        self, before: Tables, after: Tables, locked: Collection[int], *, updates: bool = False
    ) -> dict[int, Harm]:
        """What happened between two looks, by root, to tables that were there before this downgrade.

        Args:
            before: the tables at the first look.
            after: the tables at the second look.
            locked: which of them this transaction keeps everybody from.
            updates: whether the statement was an UPDATE.
        """
        counts = self._start.keys() | self._relied_on
        counts |= {table.root for table in before.values() if table.oid in counts}
        harm: dict[int, Harm] = {}
        for table in before.values():
            if not counts.isdisjoint((table.oid, table.root)):
                harm.setdefault(table.root, Harm()).add(
                    harm_between(self._cursor, self._protected(table), after.get(table.oid), locked)
                )
        for root, done in harm.items():
            # An UPDATE that moves rows to another partition counts as DELETE and INSERT there.
            if updates and done.deleted and self._has_partitions(root) and done.inserted >= done.deleted:
                done.deleted, done.values = 0, True
        return {root: done for root, done in harm.items() if done}

    def _once_more(
        self, harm: Mapping[int, Harm], after_first: Tables, execute: Callable[[], None], *, updates: bool
    ) -> None:
        """Measure what the statement will take, send it again, and compare."""
        self._refuse_gone(harm)
        filled = self._filled(after_first)
        if not filled:  # then nothing can be carried anywhere, and what was deleted has been counted
            self._refuse(
                f"{rows_in_words(done.deleted)} of {self._shown(root)}"
                for root, done in harm.items()
                if done.deleted and not done.whole
            )
        self._keep_writers_out(harm)
        before, _ = look(self._cursor)
        self._refuse_hidden(before, harm)
        values = {root: self._values(before[root], done) for root, done in harm.items() if done.values or done.gone}
        taken = {root: found for root, done in harm.items() if (found := self._taken(before, root, done))}
        if not filled:
            self._refuse(f"{self._counted(tables)} of {self._shown(root)}" for root, tables in taken.items())
        gives = self._gives(after_first)
        losses = self._dropped_values(harm, values)
        copies = {}
        for root, tables in taken.items():
            if gives or harm[root].deleted or root in filled:
                copies[root] = self._copied(root, tables)
            elif missing := missing_rows(
                self._cursor, rows_of(tables), tables[0], [before[oid] for oid in filled if oid in before]
            ):
                losses.append(f"{rows_in_words(missing)} of {self._shown(root)}")
        self._refuse(losses)
        self._keep_everybody_out(harm)
        execute()
        after, locked = look(self._cursor)
        done_now = self._harm(before, after, locked, updates=updates)
        losses += self._unforeseen(harm, done_now)
        losses += self._unforeseen(done_now, harm)  # what it did not do now, something has done that nobody saw
        filled = self._filled(after)  # what a statement creates is another table each time
        for root, copy in copies.items():
            holders = [after[oid] for oid in sorted({*filled, root}) if oid in after]
            if missing := missing_rows(self._cursor, f"SELECT * FROM pg_temp.{copy}", taken[root][0], holders):
                losses.append(f"{rows_in_words(missing)} of {self._shown(root)}")
            self._cursor.execute(f"DROP TABLE pg_temp.{copy}")
        changed = {root: counted for root, counted in values.items() if harm[root].values}
        losses += [loss for root, counted in changed.items() for loss in self._fewer(before, after, root, counted)]
        self._refuse(losses)
        if taken:
            self._relied_on |= {oid for oid, table in after.items() if table.root in filled}
        self._relied_on_columns |= {
            (root, number)
            for root, done in harm.items()
            if done.gone and root in after
            for number in self._added(after[root])
        }

    def _gives(self, after: Tables) -> bool:
        """Whether the statement has inserted rows, into a new table perhaps."""
        return any(oid not in self._seen or table.inserted > self._seen[oid].inserted for oid, table in after.items())

    def _dropped_values(self, harm: Mapping[int, Harm], values: Mapping[int, Mapping[str, int]]) -> list[str]:
        """What is in the columns that go; known beforehand, unless the statement changes values, too."""
        return [
            f"{rows_in_words(count)} of {self._shown(root)}.{column}"
            for root, counted in values.items()
            if not harm[root].values
            for column, count in counted.items()
            if column and count
        ]

    def _unforeseen(self, measured: Mapping[int, Harm], done: Mapping[int, Harm]) -> list[str]:
        """What a statement has done that it did not do the first time."""
        return [
            f"an unknown part of {self._shown(root)}"
            for root, harm in done.items()
            if root not in measured or not measured[root].covers(harm)
        ]

    def _refuse(self, losses: Iterable[str]) -> None:
        """Refuse the downgrade for these, unless there are none."""
        if told_of := ", ".join(losses):
            self._refusal = DataLossError(
                f"MLOPS_ENV is production and this downgrade would lose {told_of}; revision {self._revision} was not "
                "taken back"
            )
            raise self._refusal

    def _refuse_unknown(self, roots: Iterable[int]) -> None:
        """Refuse what cannot be measured any more."""
        self._refuse(f"an unknown part of {self._shown(root)}" for root in roots)

    def _refuse_gone(self, harm: Mapping[int, Harm]) -> None:
        """Refuse if something nobody saw has dropped what the statement, now taken back, seemed to drop."""
        there, _ = look(self._cursor)
        self._refuse_unknown(
            root for root, done in harm.items() if not there.keys() >= {root, *(table.oid for table in done.whole)}
        )

    def _refuse_hidden(self, before: Tables, harm: Mapping[int, Harm]) -> None:
        seen_whole = {oid for root, done in harm.items() for oid in (root, *(table.oid for table in done.whole))}
        self._refuse(
            f"rows of {self._shown(table.root)}, which cannot be counted behind {table.hidden_by}"
            for oid in sorted(seen_whole)
            if (table := before.get(oid)) is not None and table.hidden_by
        )

    def _filled(self, tables: Tables) -> set[int]:
        """The roots of the tables that this downgrade has inserted into."""
        filled = self._filled_before | self._inserted_into(tables)
        return {table.root for oid, table in tables.items() if oid in filled}

    def _inserted_into(self, tables: Tables) -> set[int]:
        """What this transaction has inserted into; the counters may still hold what the last one did."""
        return {
            oid
            for oid, table in tables.items()
            if table.inserted > (self._begin[oid].inserted if oid in self._begin else 0)
        }

    def _protected(self, table: Table) -> Table:
        """The table with the columns that were there before this downgrade, or are relied on, and the defaults of then.

        A default that the downgrade sets does not bring back what others have written.
        """
        added = self._added(table)
        first = self._start[table.oid].columns if table.oid in self._start else {}
        columns = {
            number: replace(column, default=first[number].default if number in first else None)
            for number, column in table.columns.items()
            if number not in added or (table.oid, number) in self._relied_on_columns
        }
        return replace(table, columns=columns)

    def _added(self, table: Table) -> dict[int, Column]:
        """The columns that this downgrade has added to a table that was there before."""
        first = self._start.get(table.oid, table).columns
        return {number: column for number, column in table.columns.items() if number not in first}

    def _shown(self, root: int) -> str:
        """A table's name for people: the one that it had before this downgrade."""
        return (self._start.get(root) or self._seen[root]).shown

    def _has_partitions(self, root: int) -> bool:
        return root in self._seen and not self._seen[root].file

    def _of_root(self, tables: Tables, root: int) -> list[Table]:
        """The tables that hold the rows."""
        return [table for table in tables.values() if table.root == root and table.file]

    def _tables_of(self, root: int, done: Harm) -> list[Table]:
        """What to lock, as it is before the statement."""
        return [self._seen[root]] if done.deleted or done.gone or done.values else done.whole

    def _keep_writers_out(self, harm: Mapping[int, Harm]) -> None:
        """Keep others from writing to the tables while they are measured; only where we insist, from reading, too."""
        for root, done in harm.items():
            mode = "ACCESS EXCLUSIVE" if done.locks and self._readers_kept_out else "SHARE ROW EXCLUSIVE"
            for table in self._tables_of(root, done):
                self._cursor.execute(f"LOCK TABLE {table.only}{table.sql} IN {mode} MODE")

    def _keep_everybody_out(self, harm: Mapping[int, Harm]) -> None:
        """Get the statement's own lock as soon as nobody reads, without waiting for it.

        Whoever has read the table and then wants to write it waits for us. If we waited for them, too, PostgreSQL would
        end their transaction at once.
        """
        tables = [table for root, done in harm.items() if done.locks for table in self._tables_of(root, done)]
        if self._readers_kept_out or not tables:
            return
        lock = f"LOCK TABLE {', '.join(f'{table.only}{table.sql}' for table in tables)} IN ACCESS EXCLUSIVE MODE"
        roots = {table.oid for table in tables}
        oids = ", ".join(
            str(table.oid) for table in self._seen.values() if not roots.isdisjoint((table.oid, table.root))
        )
        timeout = value(self._cursor, _LOCK_TIMEOUT_MS)
        deadline = time.monotonic() + timeout / 1000
        while not self._gets(f"{lock} NOWAIT"):
            in_use, waits_for_us = value(self._cursor, _OTHERS.format(oids=oids))
            # Before PostgreSQL 18 NOWAIT gives up if a writer waits behind our first lock; a wait goes ahead of him.
            if not in_use and self._gets(f"SET LOCAL lock_timeout = {_SHORTEST_MS}; {lock}"):
                break
            if waits_for_us or time.monotonic() > deadline:
                self._cursor.execute(f"{lock} NOWAIT")
                break
            time.sleep(_POLL_S)
        self._cursor.execute(f"SET LOCAL lock_timeout = {timeout}")

    def _gets(self, lock: str) -> bool:
        self._cursor.execute("SAVEPOINT mlops_db_lock")
        try:
            self._cursor.execute(lock)
        except psycopg2.errors.LockNotAvailable:
            self._cursor.execute("ROLLBACK TO SAVEPOINT mlops_db_lock")
            return False
        return True

    def _taken(self, before: Tables, root: int, done: Harm) -> list[Table]:
        """The tables whose rows may go; those that have none are left out."""
        tables = map(self._protected, self._of_root(before, root) if done.deleted else done.whole)
        return [table for table in tables if value(self._cursor, f"SELECT EXISTS (SELECT FROM ONLY {table.sql})")]

    def _counted(self, tables: list[Table]) -> str:
        try:
            self._cursor.execute(f"SAVEPOINT mlops_db_count; SET LOCAL statement_timeout = '{COUNT_TIMEOUT}'")
            return rows_in_words(sum(value(self._cursor, f"SELECT count(*) FROM ONLY {table.sql}") for table in tables))
        except psycopg2.errors.QueryCanceled:
            self._cursor.execute("ROLLBACK TO SAVEPOINT mlops_db_count")
            oids = ", ".join(str(table.oid) for table in tables)
            estimate = value(
                self._cursor,
                "SELECT sum(greatest(reltuples, pg_stat_get_live_tuples(oid), 1))::bigint"
                f" FROM pg_class WHERE oid IN ({oids})",
            )
            return f"about {rows_in_words(estimate)}"

    def _copied(self, root: int, tables: list[Table]) -> str:
        name = f"mlops_db_rows_{root}"
        self._cursor.execute(f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS {rows_of(tables)}")
        return name

    def _values(self, table: Table, done: Harm) -> dict[str, int]:
        """How many rows there are, under an empty name, and how many hold a value of their own in each column."""
        added = self._added(table)
        conditions = {}
        for number, column in self._protected(table).columns.items():
            own = own_value(column.name, column.default)
            for other in added.values() if number in done.gone else ():
                if other.name != column.name:
                    kinds = {column.kind, other.kind}
                    here, there = (as_compared(each.name, each.kind, kinds) for each in (column, other))
                    own += f" AND {here} IS DISTINCT FROM {there}"
            if number in done.gone or done.values:
                conditions[column.name] = own
        return count_values(self._cursor, table, conditions)

    def _fewer(self, before: Tables, after: Tables, root: int, counted: dict[str, int]) -> list[str]:
        """What there is less of than was counted."""
        if root not in after:
            return []
        names = {number: column.name for number, column in before[root].columns.items()}
        now = {n: column for n, column in self._protected(after[root]).columns.items() if n in names}
        counts = count_values(
            self._cursor, after[root], {column.name: own_value(column.name, column.default) for column in now.values()}
        )
        found = {names[number]: counts[column.name] for number, column in now.items()} | {"": counts[""]}
        shown = self._shown(root)
        return [
            f"{rows_in_words(least)} of {shown}{f'.{name}' if name else ''}"
            for name, count in counted.items()
            if (least := count - found.get(name, 0)) > 0
        ]
