"""A few rows for every table, whatever its columns are: what the checks of the revisions carry up and down."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from psycopg2 import sql

from mlops_db.inspection.patterns import matching_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    Limit = tuple[float, bool] | None  # and whether that very number is allowed

ROWS = 3

_TABLES = """
    SELECT c.oid, n.nspname, c.relname
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND c.relname NOT IN ('alembic_version', 'migration_history')
     ORDER BY c.oid
"""
# The columns that an INSERT has to fill by itself, each with the CHECKs of its table that mention it.
_COLUMNS = """
    SELECT a.attname, t.typcategory, t.typnamespace::regnamespace::text, t.typname,
           information_schema._pg_char_max_length(a.atttypid, a.atttypmod),
           coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint AS k
                      WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND a.attnum = ANY(k.conkey)), '')
      FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND a.attgenerated = ''
       AND coalesce(pg_get_expr(d.adbin, d.adrelid), '') NOT LIKE 'nextval(%%'
     ORDER BY a.attnum
"""


_CHECKS = """
    SELECT n.nspname, c.relname, a.attname, string_agg(pg_get_constraintdef(k.oid), ' ')
      FROM pg_constraint AS k
      JOIN pg_class AS c ON c.oid = k.conrelid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = ANY(k.conkey)
     WHERE k.contype = 'c' AND n.nspname IN ('public', 'mlops_internal') AND NOT c.relispartition
     GROUP BY 1, 2, 3
"""


def read_checks(cursor: Cursor) -> dict[tuple[str, str, str], str]:
    """The CHECKs of every column, by schema, table and column."""
    cursor.execute(_CHECKS)
    return {(schema, table, column): checks for schema, table, column, checks in cursor.fetchall()}


def insert_rows(cursor: Cursor, coming: Mapping[tuple[str, str, str], str] | None = None) -> None:
    """Insert rows into every table of ours.

    Values fit the types, and what CHECKs say of one column: a list of texts, a regular expression of the simple kinds
    that `matching_text` knows, numbers from and to, a least interval. Not what they say of the length of a text, nor of
    several columns together beyond that equal values will do, nor of what functions or LIKE make of a value.

    Args:
        cursor: where to insert.
        coming: the CHECKs that columns have later, from `read_checks`: a revision that adds them refuses other rows.

    Raises:
        psycopg2.Error: a table takes none of them.
    """
    cursor.execute(_TABLES)
    for oid, schema, table in cursor.fetchall():
        target = sql.Identifier(schema, table)
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(target))
        (there,) = cursor.fetchone() or (0,)
        cursor.execute(_COLUMNS, (oid,))
        columns = cursor.fetchall()
        columns = [
            (*column[:-1], f"{column[-1]} {(coming or {}).get((schema, table, column[0]), '')}") for column in columns
        ]
        names = sql.SQL(", ").join(sql.Identifier(column[0]) for column in columns)
        for number in range(there + 1, there + 1 + ROWS):
            values = sql.SQL(", ").join(_value(number, *column) for column in columns)
            given = sql.SQL("({}) VALUES ({})").format(names, values) if columns else sql.SQL("DEFAULT VALUES")
            cursor.execute(sql.SQL("INSERT INTO {} {}").format(target, given))


def _value(  # noqa: PLR0911, PLR0913, PLR0917  (a case for each sort of type; what the catalogue tells of a column)
    number: int, name: str, category: str, schema: str, type_: str, length: int | None, checks: str
) -> sql.Composable:
    """A value for the column's type category (manual, pg_type), different from row to row where nothing forbids it."""
    if category == "S":
        return sql.Literal(_text(number, length, checks))
    if category == "D":
        return sql.SQL("now() - {} * interval '1 day 1 minute'").format(sql.Literal(number))
    if category == "N":
        least, most = _bounds(name, checks)
        return sql.Literal((_whole if type_.startswith("int") else _fraction)(number, least, most))
    if category == "E":
        return sql.SQL("(enum_range(NULL::{}))[1]").format(sql.Identifier(schema, type_))
    if category == "T":
        above = re.search(rf"{_named(name)} >=? '([^']*)'::interval", checks)
        return sql.SQL("{}::interval + {}::interval").format(
            sql.Literal(above[1] if above else "0"), sql.Literal(f"{number} minutes")
        )
    if type_ == "uuid":
        return sql.SQL("gen_random_uuid()")
    simple = {"json": "{}", "jsonb": "{}", "bytea": f"{number}", "B": "true", "A": "{}"}
    value = simple.get(type_, simple.get(category))
    return sql.SQL("NULL") if value is None else sql.Literal(value)


def _named(name: str) -> str:
    """The column in a CHECK as PostgreSQL writes it, with a cast or without."""
    plain = re.escape(name)
    return rf'(?<![\w".])(?:{plain}|"{plain}")(?![\w"])\)?(?:::[\w ]+)?'


def _bounds(name: str, checks: str) -> tuple[Limit, Limit]:
    """What a number has to be at least and at most, each with whether that very number is one; None for no bound."""
    limits: dict[str, Limit] = {">": None, "<": None}
    for operator, equals, value in re.findall(rf"{_named(name)} ([<>])(=?) \(*'?(-?\d+(?:\.\d+)?)\b", checks):
        limit = (float(value), equals == "=")
        there = limits[operator]
        if there is None or (limit > there if operator == ">" else limit < there):
            limits[operator] = limit
    return limits[">"], limits["<"]


def _whole(number: int, least: Limit, most: Limit) -> int:
    first = None if least is None else math.floor(least[0]) + (0 if least[1] and least[0].is_integer() else 1)
    last = None if most is None else math.ceil(most[0]) - (0 if most[1] and most[0].is_integer() else 1)
    if first is not None and last is not None:
        return first + (number - 1) % max(last - first + 1, 1)
    return last - number if last is not None else (first or 1) + number - 1


def _fraction(number: int, least: Limit, most: Limit) -> float:
    """In hundredths where there is a bound, for numerics of a small scale; else small, for many are within 0 and 1."""
    if least is not None and most is not None:
        return least[0] + (most[0] - least[0]) * (number % 99 + 1) / 100
    if least is not None:
        return least[0] + number / 100
    return number / 10_000 if most is None else most[0] - number / 100


def _text(number: int, length: int | None, checks: str) -> str:
    """A text that differs from row to row, unless a CHECK lists what it may be."""
    listed: list[str] = re.findall(r"'((?:[^']|'')*)'", checks) if re.search(r"= ANY|(?<![<>!])= '", checks) else []
    if listed:
        return listed[0].replace("''", "'")
    pattern = re.search(r" ~ '((?:[^']|'')*)'::text", checks)
    made = matching_text(pattern[1].replace("''", "'"), number) if pattern else None
    return made if made is not None else f"{number} row"[:length]
