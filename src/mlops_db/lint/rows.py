"""Inserts a few rows into every table, for the runs of the revisions. The columns need not be known."""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import psycopg2
from psycopg2 import sql

from mlops_db.errors import require_extra
from mlops_db.lint.judged import IS_JUDGED, read_unjudged
from mlops_db.project import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    Limit = tuple[float, bool] | None  # the bound, and whether it is allowed itself

ROWS = 3
AT_ONCE = 500
TRIES = 100

# The CHECKs of columns, by schema, table and column.
Coming: TypeAlias = "Mapping[tuple[str, str, str], str]"


class _Column(NamedTuple):
    """A column to fill: its type, whether it has to be given, its length, and the CHECKs that mention it."""

    name: str
    category: str
    schema: str
    type: str
    required: bool
    length: int | None
    checks: str


_TABLES = f"""
    SELECT c.oid, n.nspname, c.relname
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY (%(schemas)s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND {IS_JUDGED}
     ORDER BY c.oid
"""
# The columns that an INSERT has to fill by itself, each with the CHECKs of its table that mention it.
_COLUMNS = """
    SELECT a.attname, t.typcategory, s.nspname, t.typname,
           a.attnotnull AND d.oid IS NULL,
           information_schema._pg_char_max_length(a.atttypid, a.atttypmod),
           coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint AS k
                      WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND a.attnum = ANY(k.conkey)), '')
      FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid JOIN pg_namespace AS s ON s.oid = t.typnamespace
      LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND a.attgenerated = ''
       AND coalesce(pg_get_expr(d.adbin, d.adrelid), '') NOT LIKE 'nextval(%%'
     ORDER BY a.attnum
"""


def insert_rows(cursor: Cursor, coming: Coming | None = None, *, rows: int = ROWS) -> dict[str, psycopg2.Error]:
    """Insert rows into every table of ours that the rules judge.

    Values fit the types, and the CHECKs of one column: a list of texts, a regular expression, bounds of numbers, a
    least interval. They need not fit other CHECKs: of the length of a text, of several columns, of functions, of LIKE.

    Args:
        cursor: where to insert, in a transaction.
        coming: the CHECKs that columns will have: a revision that adds them refuses other rows.
        rows: how many for each table.

    Returns:
        The error of each table that took none, by the table's name.
    """
    left, refused = _tables(cursor, coming or {}), {}
    while left:  # a table may refer to one that comes after it
        again = []
        for schema, table, columns, there in left:
            cursor.execute("SAVEPOINT rows")
            try:
                numbers = range(there + 1, there + 1 + rows)
                at_once = AT_ONCE if columns else 1  # for DEFAULT VALUES there is no list
                for first in range(0, rows, at_once):
                    cursor.execute(_insert(schema, table, columns, *numbers[first : first + at_once]))
            except psycopg2.Error as error:
                cursor.execute("ROLLBACK TO SAVEPOINT rows")
                refused[f"{schema}.{table}".removeprefix("public.")] = error
                again.append((schema, table, columns, there))
            else:
                refused.pop(f"{schema}.{table}".removeprefix("public."), None)
            cursor.execute("RELEASE SAVEPOINT rows")
        left = again if len(again) < len(left) else []
    return refused


def inserts(cursor: Cursor, coming: Coming) -> Iterator[tuple[str, str]]:
    """An INSERT of the next row into every table, and one with only the columns that have no default.

    Yields a name for people, and the statement.
    """
    for schema, table, columns, there in _tables(cursor, coming):
        shown = f"{schema}.{table}".removeprefix("public.")
        yield shown, _insert(schema, table, columns, there + 1).as_string(cursor)
        required = [column for column in columns if column.required]
        yield f"{shown} of what it requires", _insert(schema, table, required, there + 2).as_string(cursor)


def _tables(cursor: Cursor, coming: Coming) -> list[tuple[str, str, list[_Column], int]]:
    """Every table of ours, the columns to fill, and how many rows it has."""
    cursor.execute(_TABLES, {"schemas": list(SCHEMAS), "unjudged": read_unjudged(cursor)})
    tables = []
    for oid, schema, table in cursor.fetchall():
        cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table)))
        (there,) = cursor.fetchone() or (0,)
        cursor.execute(_COLUMNS, (oid,))
        columns = [
            _Column._make((name, *rest, f"{checks} {coming.get((schema, table, name), '')}"))
            for name, *rest, checks in cursor.fetchall()
        ]
        tables.append((schema, table, columns, there))
    return tables


def _insert(schema: str, table: str, columns: list[_Column], *numbers: int) -> sql.Composed:
    comma = sql.SQL(", ")
    names = comma.join(sql.Identifier(column.name) for column in columns)
    rows = [sql.SQL("({})").format(comma.join(_value(number, column) for column in columns)) for number in numbers]
    given = sql.SQL("({}) VALUES {}").format(names, comma.join(rows)) if columns else sql.SQL("DEFAULT VALUES")
    return sql.SQL("INSERT INTO {} {}").format(sql.Identifier(schema, table), given)


def _value(number: int, column: _Column) -> sql.Composable:  # noqa: PLR0911  (a case for each sort of type)
    """A value for the column's type category (manual, pg_type), different from row to row where nothing forbids it."""
    name, category, schema, type_, checks = column.name, column.category, column.schema, column.type, column.checks
    if category == "S":
        return sql.Literal(_text(number, column.length, checks))
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


@cache  # asked for each of ten thousand rows
def _bounds(name: str, checks: str) -> tuple[Limit, Limit]:
    """The lower and the upper bound of a number, each with whether it is allowed itself; None for no bound."""
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
    """A number in hundredths if there is a bound, because a numeric may have a small scale; else a number below 1."""
    if least is not None and most is not None:
        return least[0] + (most[0] - least[0]) * (number % 99 + 1) / 100
    if least is not None:
        return least[0] + number / 100
    return number / 10_000 if most is None else most[0] - number / 100


def _text(number: int, length: int | None, checks: str) -> str:
    """A text that differs from row to row, unless a CHECK lists what it may be."""
    array = re.search(r"= ANY \('\{([^{},\"]+)", checks)
    if array:
        return array[1].replace("''", "'")
    listed: list[str] = re.findall(r"'((?:[^']|'')*)'", checks) if re.search(r"= ANY|(?<![<>!])= '", checks) else []
    if listed:
        return listed[0].replace("''", "'")
    pattern = re.search(r" ~ '((?:[^']|'')*)'::text", checks)
    made = matching_text(pattern[1].replace("''", "'"), number, length) if pattern else None
    return made if made is not None else f"{number} row"[:length]


def matching_text(pattern: str, number: int, length: int | None) -> str | None:
    """A text that matches a regular expression, for most numbers another one; None if none is short enough.

    Raises:
        MissingExtraError: rstr is not installed.
    """
    missing = "rows for a CHECK with a regular expression need rstr, which is not installed"
    with require_extra("check", missing, otherwise=" (in a checkout: `uv sync`)"):
        from rstr import Rstr  # noqa: PLC0415  (comes with the extra, and few tables need it)
    random = Rstr(Random(number))  # noqa: S311  (no secret)
    try:
        texts = [random.xeger(pattern) for _ in range(TRIES)]
    except (re.error, KeyError, IndexError, NotImplementedError):  # PostgreSQL's syntax is not quite Python's
        return None
    fitting = (text for text in texts if length is None or len(text) <= length)
    return max(islice(fitting, 3), key=len, default=None)  # long ones differ more often
