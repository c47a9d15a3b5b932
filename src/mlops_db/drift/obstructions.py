"""Finds why a statement of a repair would fail: no cast between two types, or rows that do not fit.

Such a statement would stop the repair halfway. So the repair has a comment instead, for work by hand.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import psycopg2

from mlops_db.drift.rendering import rolled_back
from mlops_db.errors import printable
from mlops_db.server.failures import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.drift.catalogue import Catalogue, Name, Properties

_LIMITED = re.compile(r"character varying\((\d+)\)")
_KEY = re.compile(r"(?:PRIMARY KEY|UNIQUE) \(([^()]*)\)(?: INCLUDE \([^()]*\))?")


def converted(column: str, there: str, wanted: str) -> str:
    """SQL that converts the values of a column to the wanted type."""
    if wanted != there and wanted.startswith("timestamp") and there.startswith("timestamp"):
        return f"{column} AT TIME ZONE 'UTC'"  # not the time zone of the session
    if wanted.startswith("character"):
        return f"{column}::text"  # a value that is too long is then an error; a cast would cut it
    return f"{column}::{wanted}"


def obstructions(cursor: Cursor, expected: Catalogue, found: Catalogue, *, with_rows: bool) -> dict[Name, str]:
    """The reasons why columns cannot get their type or NOT NULL, and keys cannot be created, by column or key.

    Args:
        cursor: in a transaction.
        expected: what the revisions make.
        found: what is there.
        with_rows: whether to read the rows, too, all of each table; code of the table's owner can run then.
    """
    reasons: dict[Name, str] = {}
    for name, wanted in expected.items():
        if name.table in expected and name.table in found:
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
    """Whether there are such rows; False if they cannot be read."""
    with rolled_back(cursor), suppress(psycopg2.ProgrammingError, psycopg2.errors.QueryCanceled):
        cursor.execute(f"SELECT {rows} LIMIT 1")
        return cursor.rowcount > 0
    return False


def _failure(cursor: Cursor, statement: str) -> str:
    """Why values do not convert; empty if they do, or if that cannot be found out."""
    unknown = (psycopg2.ProgrammingError, psycopg2.errors.QueryCanceled, psycopg2.errors.ReadOnlySqlTransaction)
    with rolled_back(cursor), suppress(*unknown):
        try:
            cursor.execute(statement)
        except (psycopg2.errors.CannotCoerce, psycopg2.DataError) as error:
            return first_line(str(error))
    return ""
