"""Counts what statements do to rows in shards of Citus, for which PostgreSQL keeps no counters where the guard looks.

The server says how many rows a single INSERT, UPDATE or DELETE has changed. What other statements change, such as a
function or a WITH, is not known; that they may change any is known from the locks of the transaction.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from mlops_db.migration.guard.table_changes import read_written
from mlops_db.migration.statements import NAME, first_words, literal, mask_texts

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (its only name)

    from mlops_db.migration.guard.table_changes import Tables

_CHANGE = re.compile(rf"\s*(UPDATE|DELETE\s+FROM|INSERT\s+INTO)\s+(?:ONLY\s+)?({NAME})", re.IGNORECASE)
_ON_CONFLICT = re.compile(r"\bON\s+CONFLICT\b.*\bDO\s+UPDATE\b", re.IGNORECASE | re.DOTALL)
# They change no row of a table that is in shards, or the table's file shows it, or they only insert.
_HARMLESS = {
    "ALTER", "ANALYZE", "COMMENT", "COPY", "CREATE", "DROP", "GRANT", "LOCK", "RELEASE", "RESET", "REVOKE", "ROLLBACK",
    "SAVEPOINT", "SET", "SHOW", "TRUNCATE",
}  # fmt: skip
Counts = dict[int, tuple[int, int, int]]


class ShardWrites:
    """The rows that one transaction has inserted, updated and deleted in shards, by the root of the tables."""

    def __init__(self, cursor: Cursor) -> None:
        """Take a cursor of the run's connection."""
        self._cursor = cursor
        self.begin()

    def begin(self) -> None:
        """Begin to count, at the beginning of a transaction."""
        self._counts: Counts = {}
        self._written: set[int] = set()  # roots, also by uncounted statements
        self._before: tuple[Counts, set[int]] = ({}, set())

    def roll_back(self) -> None:
        """Forget the last statement, which was taken back."""
        self._counts, self._written = self._before

    def counted(self, tables: Tables) -> Tables:
        """The tables with the counters that PostgreSQL has not."""
        for oid, (inserted, updated, deleted) in self._counts.items():
            if oid in tables:
                tables[oid] = replace(tables[oid], inserted=inserted, updated=updated, deleted=deleted)
        return tables

    def count(self, statement: str, changed: int, tables: Tables) -> set[int]:
        """Count what a statement has changed.

        Args:
            statement: its text.
            changed: how many rows it has changed, as the server said.
            tables: those before the statement.

        Returns:
            The roots of the tables in which it may have changed rows that nobody has counted.
        """
        self._before = dict(self._counts), set(self._written)
        in_shards = {oid: table.root for oid, table in tables.items() if table.in_shards}
        written = {in_shards[oid] for oid in read_written(self._cursor) if oid in in_shards}
        if not written:
            return set()
        words = first_words(statement)
        change = _CHANGE.match(mask_texts(statement))
        if len(words) == 1 and change is not None:
            name = statement[change.start(2) : change.end(2)]
            oid = _query_value(self._cursor, f"SELECT to_regclass({literal(name)})::oid::bigint")
            if oid in in_shards:
                self._add(in_shards[oid], change[1][:6].upper(), max(changed, 0), statement)
                self._written |= written
                return set()
        new, self._written = written - self._written, self._written | written
        # A single change of another table changes nothing in shards but what is locked now.
        if (words and all(word in _HARMLESS for word in words)) or (len(words) == 1 and change is not None):
            return new if words != ["COPY"] else set()
        return written

    def _add(self, root: int, kind: str, changed: int, statement: str) -> None:
        inserted, updated, deleted = self._counts.get(root, (0, 0, 0))
        if kind == "DELETE":
            deleted += changed
        elif kind == "UPDATE" or _ON_CONFLICT.search(statement):
            updated += changed
        else:
            inserted += changed
        self._counts[root] = (inserted, updated, deleted)


def _query_value(cursor: Cursor, query: str) -> int | None:
    """The first value of a query's first row, with the revision's own search path."""
    cursor.execute(query)
    row = cursor.fetchone()
    return None if row is None else row[0]
