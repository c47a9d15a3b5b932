"""What keeps a statement of a repair from running: types without a cast between them, and rows that do not fit.

Such a statement would fail in the middle of the repair, so it is not proposed; what is to be done is by hand.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

import psycopg2

from mlops_db.drift.catalogue import Name
from mlops_db.drift.rendering import rolled_back
from mlops_db.errors import printable
from mlops_db.server.failures import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.drift.catalogue import Catalogue, Properties

_LIMITED = re.compile(r"character varying\((\d+)\)")
_KEY = re.compile(r"(?:PRIMARY KEY|UNIQUE) \(([^()]*)\)(?: INCLUDE \([^()]*\))?")


def converted(column: str, there: str, wanted: str) -> str:
    """SQL for the values of a column in the type that is wanted."""
    if wanted != there and wanted.startswith("timestamp") and there.startswith("timestamp"):
        return f"{column} AT TIME ZONE 'UTC'"  # not the zone of whoever runs this
    if wanted.startswith("character"):
        return f"{column}::text"  # a value that is too long is then an error; a cast would cut it
    return f"{column}::{wanted}"


def obstructions(cursor: Cursor, expected: Catalogue, found: Catalogue, *, with_rows: bool) -> dict[Name, str]:
    """Why a column does not get its type or its NOT NULL, or a key cannot be made, by the name of each such thing.

    Args:
        cursor: in a transaction.
        expected: what the revisions make.
        found: what is there.
        with_rows: whether rows are looked at, too, each table from end to end; what its owner wrote may run then.
    """
    reasons: dict[Name, str] = {}
    for name, wanted in expected.items():
        if Name("table", "", name.within) in expected.keys() & found.keys():
            there = found.get(name)
            of_it: Iterator[str] = iter(())
            if name.kind == "column" and there is not None:
                of_it = _of_column(cursor, name, there, wanted, with_rows=with_rows)
            elif name.kind == "constraint" and there is None and with_rows:
                of_it = _of_key(cursor, name.within, wanted["definition"])
            for reason in islice(of_it, 1):  # the others may follow from it
                reasons[name] = printable(reason)
    return reasons


def _of_column(cursor: Cursor, name: Name, there: Properties, wanted: Properties, *, with_rows: bool) -> Iterator[str]:
    if there["type"] != wanted["type"]:
        value = converted(name.name, there["type"], wanted["type"])
        if _failure(cursor, f"CREATE TEMPORARY VIEW mlops_db_converted AS SELECT {value} AS it FROM {name.within}"):
            yield f"PostgreSQL does not convert {there['type']} to it"
        if with_rows and (failure := _failure(cursor, f"SELECT count({value}) FROM {name.within}")):
            yield f"not all rows convert: {failure}"
        limit = _LIMITED.fullmatch(wanted["type"])
        if with_rows and limit and _any(cursor, f"FROM {name.within} WHERE char_length(rtrim({value})) > {limit[1]}"):
            yield f"some rows are longer than {limit[1]} characters"
    if with_rows and "not null" in wanted and "not null" not in there:
        yield from _null_in(cursor, name.within, name.name)


def _of_key(cursor: Cursor, table: str, definition: str) -> Iterator[str]:
    key = _KEY.fullmatch(definition)
    if key:
        if definition.startswith("PRIMARY"):
            yield from _null_in(cursor, table, key[1])
        if _any(cursor, f"FROM {table} GROUP BY {key[1]} HAVING count(*) > 1 AND num_nulls({key[1]}) = 0"):
            yield f"some rows have the same {key[1]}"


def _null_in(cursor: Cursor, table: str, columns: str) -> Iterator[str]:
    if _any(cursor, f"FROM {table} WHERE num_nulls({columns}) > 0"):
        yield f"some rows have NULL in {columns}"


def _any(cursor: Cursor, rows: str) -> bool:
    """Whether there are such rows, as far as that can be told."""
    with rolled_back(cursor):
        try:
            cursor.execute(f"SELECT {rows} LIMIT 1")
        except (psycopg2.ProgrammingError, psycopg2.errors.QueryCanceled):
            return False
        return cursor.rowcount > 0


def _failure(cursor: Cursor, statement: str) -> str:
    """Why values do not convert; empty if they do, or if that cannot be told."""
    with rolled_back(cursor):
        try:
            cursor.execute(statement)
        except (psycopg2.errors.CannotCoerce, psycopg2.DataError) as error:
            return first_line(str(error))
        except (
            psycopg2.ProgrammingError,
            psycopg2.errors.QueryCanceled,
            psycopg2.errors.ReadOnlySqlTransaction,
        ):
            return ""
        return ""
