"""A few rows for every table, whatever its columns are: what the checks of the revisions carry up and down."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg2 import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

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
    """Insert rows into every table of ours; values fit the types, and the lists that CHECKs of text columns allow.

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
            values = sql.SQL(", ").join(_value(number, *column[1:]) for column in columns)
            given = sql.SQL("({}) VALUES ({})").format(names, values) if columns else sql.SQL("DEFAULT VALUES")
            cursor.execute(sql.SQL("INSERT INTO {} {}").format(target, given))


def _value(  # noqa: PLR0913, PLR0917  (what the catalogue tells of a column)
    number: int, category: str, schema: str, type_: str, length: int | None, checks: str
) -> sql.Composable:
    """A value for the column's type category (manual, pg_type), different from row to row where nothing forbids it."""
    if category == "S":
        return sql.Literal(_text(number, length, checks))
    if category == "D":
        return sql.SQL("now() - {} * interval '1 day 1 minute'").format(sql.Literal(number))
    if category == "N":
        # Small, because scores are within 0 and 1.
        return sql.Literal(number if type_.startswith("int") else number / 10_000)
    if category == "E":
        return sql.SQL("(enum_range(NULL::{}))[1]").format(sql.Identifier(schema, type_))
    if type_ == "uuid":
        return sql.SQL("gen_random_uuid()")
    simple = {"json": "{}", "jsonb": "{}", "bytea": f"{number}", "B": "true", "T": f"{number} minutes", "A": "{}"}
    value = simple.get(type_, simple.get(category))
    return sql.SQL("NULL") if value is None else sql.Literal(value)


def _text(number: int, length: int | None, checks: str) -> str:
    """A text that differs from row to row, unless a CHECK lists what it may be."""
    listed = re.findall(r"'((?:[^']|'')*)'", checks) if re.search(r"= ANY|(?<![<>!])= '", checks) else []
    return listed[0].replace("''", "'") if listed else f"{number} row"[:length]
