"""Finds out whether rows and values are still somewhere else, by comparing what two tables hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.migration.guard.row_values import holds_own_value
from mlops_db.migration.guard.table_changes import on_safe_path, query_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (its only name)

    from mlops_db.migration.guard.table_changes import Table

_FLOATS = {"real", "double precision"}
_INTEGERS = {"smallint", "integer", "bigint"}
_NUMBERS = _INTEGERS | {"numeric", "boolean"}
_TIMES = {"date", "timestamp without time zone", "timestamp with time zone"}
_JSON = {"json", "jsonb"}
# All others are compared as text.
_COMPARED_AS_THEY_ARE = ({"boolean"}, {"date"}, {"uuid"}, {"jsonb"}, {"bytea"}, _FLOATS, _NUMBERS - {"boolean"})


@dataclass(frozen=True)
class Bounds:
    """The rows of a batch, which is one statement of a downgrade: so only they need to be measured.

    Attributes:
        table: oid of the table, or of the root of its partitions; 0 if the statement is no batch.
        key: the column, as SQL has it.
        after: the greatest key before the batch.
        upto: the greatest key of the batch.
    """

    table: int = 0
    key: str = ""
    after: int = 0
    upto: int = 0

    def of(self, table: int) -> Bounds:
        """The bounds of the rows of a table, or of the root of its partitions: all rows, unless it is their table."""
        return self if table == self.table else Bounds()

    @property
    def where(self) -> str:
        """SQL that limits a query to these rows."""
        if not self.table:
            return ""
        return f" WHERE {self.key} > '{self.after}'::bigint AND {self.key} <= '{self.upto}'::bigint"

    def limit(self, table: Table) -> str:
        """SQL that limits a query of another table to rows with these keys, if it has such a column."""
        column = next((column for column in table.columns.values() if column.name == self.key), None)
        return self.where if column is not None and column.kind in _INTEGERS else ""


def select_rows(tables: Iterable[Table], where: str = "") -> str:
    """A query for the rows of tables of one root, with the columns of the first one."""
    first, *_ = tables = list(tables)
    columns = ", ".join(column.name for column in first.columns.values())
    return " UNION ALL ".join(f"SELECT {columns} FROM ONLY {table.sql}{where}" for table in tables)


def count_missing_rows(cursor: Cursor, rows: str, table: Table, holders: list[Table], bounds: Bounds) -> int:
    """Count the rows that have no equal row in the holders.

    A table that lacks a column can hold the rows only if all of them have its default there. The columns that all
    tables have are compared. Rows in shards are copied first: a node of Citus leaves out a cast from varchar to text,
    and then refuses the comparison.

    Args:
        cursor: of the transaction.
        rows: a query for the rows, which are not in shards.
        table: the table that they come from.
        holders: the tables that may hold their equals.
        bounds: those of the rows.
    """
    names = {column.name: column.kind for column in table.columns.values()}
    usable: list[dict[str, str]] = []
    sources = []
    copies = []
    for holder in holders:
        has = {column.name: column.kind for column in holder.columns.values()}
        lacks = [
            holds_own_value(column.name, column.default) for column in table.columns.values() if column.name not in has
        ]
        if holder.hidden_by or (
            lacks and query_value(cursor, f"SELECT EXISTS (SELECT 1 FROM ({rows}) AS taken WHERE {' OR '.join(lacks)})")
        ):
            continue
        usable.append(has)
        source = f"{holder.only}{holder.sql}{bounds.limit(holder)}"
        if holder.in_shards:
            columns = ", ".join(column.name for column in holder.columns.values())
            copies.append(f"mlops_db_held_{holder.oid}")
            cursor.execute(f"CREATE TEMPORARY TABLE {copies[-1]} ON COMMIT DROP AS SELECT {columns} FROM {source}")
            source = f"pg_temp.{copies[-1]}"
        sources.append(source)
    common = [name for name in names if all(name in has for has in usable)]
    if not usable or not common:
        return int(query_value(cursor, f"SELECT count(*) FROM ({rows}) AS taken"))

    def compared(of: Mapping[str, str]) -> str:
        return ", ".join(comparable(name, of[name], {names[name], *(has[name] for has in usable)}) for name in common)

    kept = " UNION ALL ".join(
        f"SELECT {compared(has)} FROM {source}" for has, source in zip(usable, sources, strict=True)
    )
    taken = f"SELECT {compared(names)} FROM ({rows}) AS taken"
    missing = int(query_value(cursor, f"SELECT count(*) FROM ({taken} EXCEPT ALL ({kept})) AS missing"))
    for copy in copies:
        cursor.execute(f"DROP TABLE pg_temp.{copy}")
    return missing


def count_values(cursor: Cursor, table: Table, conditions: Mapping[str, str], where: str = "") -> dict[str, int]:
    """Count the rows of a table, under an empty name, and those that meet each condition, under its name."""
    filters = "".join(f", count(*) FILTER (WHERE {condition})" for condition in conditions.values())
    with on_safe_path(cursor):
        cursor.execute(f"SELECT count(*){filters} FROM {table.only}{table.sql}{where}")
        return dict(zip(("", *conditions), cursor.fetchone() or (), strict=True))


def comparable(column: str, kind: str, kinds: set[str]) -> str:
    """SQL for a column's value in a form that equals only the same value in a column of another type.

    Args:
        column: its name.
        kind: its type, without a length.
        kinds: the types of all columns that are compared.
    """
    if any(kinds <= alike for alike in _COMPARED_AS_THEY_ARE):
        return column
    if kinds <= _TIMES:
        return f"{column}::timestamptz"
    if kinds <= _JSON and kinds != {"json"}:
        return f"{column}::jsonb"
    if kinds <= _NUMBERS | _FLOATS:
        number = f"{column}::int" if kind == "boolean" else column
        # PostgreSQL would compare as floats, and two long numbers are one float. A float's text has all its digits.
        exact = f"trim_scale({number}::text::numeric)::text"
        if kind in _FLOATS:  # before PostgreSQL 14, numeric has no infinity
            return f"CASE WHEN abs({column}) = 'Infinity' THEN {column}::text ELSE {exact} END"
        return exact
    return f'{column}::text COLLATE "C"'
