"""The tables that revisions copy while others use them, as `mlops_internal.table_copies` registers them.

Revisions create that table, write it and drop it, with one row for each copy (oids of tables, numbers of rows):

- source: the table that everybody uses
- copy: the table beside it, with its partitions
- changes: the log of the changes to the source that the copy lacks so far
- source_rows, copy_rows: counted once and kept by what replays the log; NULL before

As long as the source is there, the rows of the copy and of the log are nothing that can be lost. A downgrade may drop
the source if the log is empty and both numbers are the same. So the guard need not read millions of rows under the lock
of the swap. It has to be dropped before the log.

What a row says is trusted only if it was there before the downgrade of this revision, in a table of a role that the run
trusts. The guard checks what costs nothing: that all three tables are there, that the copy has the source's columns,
and that it has rows. It trusts the revisions for the rest: that they copied the values, that triggers have logged all
changes, that the numbers are right, and that nobody else writes to the copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.migration.guard.table_changes import on_safe_path, query_value
from mlops_db.revisions.tables import reading_fault

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (its only name)

    from mlops_db.migration.guard.table_changes import Tables

TABLE_COPIES = "mlops_internal.table_copies"
MAY_BE_READ = f"SELECT EXISTS (SELECT FROM ({reading_fault(TABLE_COPIES)}) AS found (fault) WHERE fault IS NULL)"
READ = f"""
    SELECT source::bigint, copy::bigint, changes::bigint
      FROM {TABLE_COPIES} WHERE source IN (SELECT oid FROM pg_class)
"""
_READ_NUMBERS = f"SELECT ARRAY[source_rows, copy_rows] FROM {TABLE_COPIES} WHERE source = {{source}}"


@dataclass(frozen=True)
class TableCopy:
    """A copy that is registered: the oids of the three tables; `changes` is None if there is no log."""

    source: int
    copy: int
    changes: int | None


def read_copies(cursor: Cursor) -> set[TableCopy]:
    """Read the copies that are registered; none if the register is missing, or is not safe to read."""
    if not query_value(cursor, MAY_BE_READ):
        return set()
    with on_safe_path(cursor):
        cursor.execute(READ)
        return {TableCopy(*row) for row in cursor.fetchall()}


def find_gap(cursor: Cursor, copied: TableCopy, tables: Tables) -> str | None:
    """Find why a copy cannot stand for its source, which has rows; None if it can.

    Args:
        cursor: of a transaction that keeps others from writing to the source.
        copied: a copy that is there.
        tables: all tables.
    """
    copy = tables[copied.copy]
    held = {column.name for column in copy.columns.values()}
    lacking = [column.name for column in tables[copied.source].columns.values() if column.name not in held]
    if lacking:
        return f"whose copy lacks column {', '.join(lacking)}"
    changes = tables.get(copied.changes or 0)
    if changes is None:
        return "whose copy has no log of changes"
    if _has_rows(cursor, changes.sql):
        return "whose copy lacks changes that are still in the log"
    numbers = query_value(cursor, _READ_NUMBERS.format(source=copied.source))
    if not numbers or None in numbers:
        return "which were not counted in it and in its copy"
    of_source, of_copy = numbers
    if of_source != of_copy or of_source == 0:
        return f"of which {of_source:,} were counted, and {of_copy:,} in its copy"
    return None if _has_rows(cursor, copy.sql) else "whose copy has none"


def _has_rows(cursor: Cursor, table: str) -> bool:
    return bool(query_value(cursor, f"SELECT EXISTS (SELECT 1 FROM {table})"))
