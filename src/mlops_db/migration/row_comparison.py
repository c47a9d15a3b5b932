"""Whether rows and values are elsewhere: what two tables hold, compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.migration.row_values import own_value
from mlops_db.migration.table_changes import aside, value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (its only name)

    from mlops_db.migration.table_changes import Table

_FLOATS = {"real", "double precision"}
_NUMBERS = {"smallint", "integer", "bigint", "numeric", "boolean"}
_TIMES = {"date", "timestamp without time zone", "timestamp with time zone"}
_JSON = {"json", "jsonb"}
# Of all others the text is compared.
_COMPARED_AS_THEY_ARE = ({"boolean"}, {"date"}, {"uuid"}, {"jsonb"}, {"bytea"}, _FLOATS, _NUMBERS - {"boolean"})


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
    names = {column.name: column.kind for column in table.columns.values()}
    usable: list[dict[str, str]] = []
    sources = []
    for holder in holders:
        has = {column.name: column.kind for column in holder.columns.values()}
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

    def compared(of: Mapping[str, str]) -> str:
        return ", ".join(as_compared(name, of[name], {names[name], *(has[name] for has in usable)}) for name in common)

    kept = " UNION ALL ".join(
        f"SELECT {compared(has)} FROM {source}" for has, source in zip(usable, sources, strict=True)
    )
    taken = f"SELECT {compared(names)} FROM ({rows}) AS taken"
    return int(value(cursor, f"SELECT count(*) FROM ({taken} EXCEPT ALL ({kept})) AS missing"))


def count_values(cursor: Cursor, table: Table, conditions: Mapping[str, str]) -> dict[str, int]:
    """How many rows a table has, under an empty name, and how many meet each condition, under its name."""
    filters = "".join(f", count(*) FILTER (WHERE {condition})" for condition in conditions.values())
    with aside(cursor):
        cursor.execute(f"SELECT count(*){filters} FROM {table.only}{table.sql}")
        return dict(zip(("", *conditions), cursor.fetchone() or (), strict=True))


def as_compared(column: str, kind: str, kinds: set[str]) -> str:
    """SQL for a column's value, so that it equals only the same value in a column of another type.

    Args:
        column: its name.
        kind: its type, without a length.
        kinds: this and the others' types.
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
