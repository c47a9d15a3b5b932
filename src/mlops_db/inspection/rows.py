"""A few rows for every table, whatever its columns are: what the checks of the revisions carry up and down."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from psycopg2 import sql

if TYPE_CHECKING:
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
    SELECT a.attname, t.typcategory, t.typname, information_schema._pg_char_max_length(a.atttypid, a.atttypmod),
           coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint AS k
                      WHERE k.conrelid = a.attrelid AND k.contype = 'c' AND a.attnum = ANY(k.conkey)), '')
      FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = '' AND a.attgenerated = ''
       AND coalesce(pg_get_expr(d.adbin, d.adrelid), '') NOT LIKE 'nextval(%%'
     ORDER BY a.attnum
"""


def insert_rows(cursor: Cursor) -> None:
    """Insert rows into every table of ours; values fit the types, and the lists that CHECKs of text columns allow.

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
        names = sql.SQL(", ").join(sql.Identifier(column[0]) for column in columns)
        for number in range(there + 1, there + 1 + ROWS):
            values = sql.SQL(", ").join(_value(number, *column[1:]) for column in columns)
            cursor.execute(sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(target, names, values))


def _value(number: int, category: str, type_: str, length: int | None, checks: str) -> sql.Composable:
    """A value for the column's type category (manual, pg_type), different from row to row where nothing forbids it."""
    if category == "S":
        allowed = re.findall(r"'((?:[^']|'')*)'", checks)
        return sql.Literal(allowed[0] if allowed else f"row {number}"[:length])
    if category == "D":
        return sql.SQL("now() - {} * interval '1 minute'").format(sql.Literal(number))
    if category == "N":
        return sql.Literal(number if type_.startswith("int") else 0.5)
    if type_ == "uuid":
        return sql.SQL("gen_random_uuid()")
    if type_ in ("json", "jsonb"):
        return sql.Literal("{}")
    simple = {"B": "true", "T": "1 minute", "A": "{}"}
    return sql.Literal(simple[category]) if category in simple else sql.SQL("NULL")
