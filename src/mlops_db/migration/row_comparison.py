"""Whether rows and values are elsewhere: what two tables hold, compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.migration.row_values import own_value
from mlops_db.migration.table_changes import aside, value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (its only name)

    from mlops_db.migration.table_changes import Table

# Types whose values PostgreSQL compares with each other; of all others the text is compared.
_COMPARED = (
    {"smallint", "integer", "bigint", "numeric", "real", "double precision"},
    {"text", "character varying"},
    {"timestamp without time zone", "timestamp with time zone"},
    {"date"}, {"boolean"}, {"uuid"}, {"jsonb"}, {"interval"}, {"bytea"},
)  # fmt: skip


def rows_of(tables: Iterable[Table]) -> str:
    """All rows of the tables, which are of one root, with the columns of the first one."""
    first, *_ = tables = list(tables)
    columns = ", ".join(column.name for column in first.columns.values())
    return " UNION ALL ".join(f"SELECT {columns} FROM ONLY {table.sql}" for table in tables)


def missing_rows(cursor: Cursor, rows: str, table: Table, holders: list[Table]) -> int:
    """How many rows have no equal row in the holders.

    A table that lacks a column can hold them only if none of them has a value of its own there. What all tables have in
    common is compared.

    Args:
        cursor: of the transaction.
        rows: a query for the rows.
        table: the table that they are of.
        holders: the tables that may hold their equals.
    """
    names = {column.name: column.type for column in table.columns.values()}
    usable: list[dict[str, str]] = []
    sources = []
    for holder in holders:
        has = {column.name: column.type for column in holder.columns.values()}
        lacks = [own_value(column.name, column.default) for column in table.columns.values() if column.name not in has]
        if holder.hidden_by or (
            lacks and value(cursor, f"SELECT EXISTS (SELECT FROM ({rows}) AS taken WHERE {' OR '.join(lacks)})")
        ):
            continue
        usable.append(has)
        sources.append(f"{holder.only}{holder.sql}")
    common = [name for name in names if all(name in has for has in usable)]
    if not usable or not common:
        return int(value(cursor, f"SELECT count(*) FROM ({rows}) AS taken"))
    columns = ", ".join(_as_compared(name, {names[name], *(has[name] for has in usable)}) for name in common)
    kept = " UNION ALL ".join(f"SELECT {columns} FROM {source}" for source in sources)
    return int(
        value(cursor, f"SELECT count(*) FROM (SELECT {columns} FROM ({rows}) AS taken EXCEPT ALL ({kept})) AS missing")
    )


def count_values(cursor: Cursor, table: Table, conditions: Mapping[str, str]) -> dict[str, int]:
    """How many rows a table has, under an empty name, and how many meet each condition, under its name."""
    filters = "".join(f", count(*) FILTER (WHERE {condition})" for condition in conditions.values())
    with aside(cursor):
        cursor.execute(f"SELECT count(*){filters} FROM {table.only}{table.sql}")
        return dict(zip(("", *conditions), cursor.fetchone() or (), strict=True))


def _as_compared(column: str, types: set[str]) -> str:
    return column if any(types <= alike for alike in _COMPARED) else f"{column}::text AS {column}"
