"""The rows that a downgrade would lose, read from its SQL before anything runs.

`row_guard` finds the losses that SQL does not show: it watches the downgrade.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg2.errors import LockNotAvailable, QueryCanceled
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import DataLossError
from mlops_db.migration.guard.row_values import HIDDEN_BY, constant_default, holds_own_value, rows_in_words
from mlops_db.migration.guard.table_copies import MAY_BE_READ, READ, TABLE_COPIES
from mlops_db.migration.statements import NAME, PART, stored_name, without_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True)
class Loss:
    """What a downgrade step removes for good.

    Attributes:
        what: in the words of a message: `12 rows of model_versions`.
        certain: false if the downgrade may save the rows, because it also writes elsewhere; if its SQL is not known
            before it runs; or if the SQL may never be run.
        table: the oid of the table that it takes them from; None if that is not known.
    """

    what: str
    certain: bool = True
    table: int | None = None


_IF_EXISTS = r"(?:IF\s+EXISTS\s+)?"
_ROWS_GO = re.compile(
    rf"\b(?:DROP\s+TABLE\s+{_IF_EXISTS}|TRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?|DELETE\s+FROM\s+(?:ONLY\s+)?)"
    rf"({NAME}(?:\s*,\s*{NAME})*)",
    re.IGNORECASE,
)
_SOME_ROWS_GO = re.compile(r'DELETE\b(?:"[^"]*"|[^;"])*?\bWHERE\b', re.IGNORECASE)
_ALTER = re.compile(rf"\bALTER\s+TABLE\s+{_IF_EXISTS}(?:ONLY\s+)?({NAME})((?:{PART}|[^;\"])*)", re.IGNORECASE)
# A column can be called identity; one called constraint has quotes. Other DROP clauses match, too; no such column
# exists, so they count zero rows.
_COLUMN_GOES = re.compile(
    rf"\bALTER\s+(?:COLUMN\s+)?{PART}\s+DROP\b|\bDROP\s+(?!CONSTRAINT[\s\"])(?:COLUMN\s+)?{_IF_EXISTS}({PART})",
    re.IGNORECASE,
)
_RENAMED = re.compile(rf"\s+RENAME\s+TO\s+({PART})", re.IGNORECASE)
# Without CASCADE, PostgreSQL refuses to drop a schema that has a table.
_TABLES_GO = re.compile(r"\bDROP\s+SCHEMA\b[^;]*\bCASCADE\b", re.IGNORECASE)
# These may copy rows or values elsewhere before they go; a rule or a function does something at another time; what uses
# the register of copies may swap a table for its copy.
_MAY_KEEP = re.compile(
    rf"\b(?:{re.escape(TABLE_COPIES)}"
    r"|(?:INSERT|MERGE|SELECT\b[^;]*)\s+INTO|UPDATE\b[^;]*\sSET|COPY\b[^;]*\sFROM|CREATE\s+(?:\w+\s+)?TABLE\b[^;]*\sAS"
    r"|CREATE\s+(?:OR\s+REPLACE\s+)?(?:RULE|FUNCTION|PROCEDURE))\b",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(rf"{PART}\.{PART}")
# The table as the revision finds it, and the column, if one is asked for.
_FIND = text(f"""
    SELECT c.oid::bigint, quote_ident(n.nspname) || '.' || quote_ident(c.relname),
           coalesce(pg_partition_root(c.oid)::oid, c.oid)::bigint, {HIDDEN_BY.format(table="c.oid")},
           greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 1)::bigint,
           quote_ident(a.attname), a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid),
           format_type(a.atttypid, a.atttypmod)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = :column AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.oid = to_regclass(:table)
""")


def find_losses(connection: Connection, downgrades: Mapping[str, str | None]) -> list[Loss]:
    """Find what downgrades would lose, from their SQL and the rows that are there.

    Only reads, under the connection's timeouts and without row level security. If counting a table takes too long, the
    planner's estimate is used.

    Args:
        connection: where the rows are.
        downgrades: the SQL of each revision's downgrade; None if it is not known before it runs.
    """
    beside = _tables_beside_others(connection)
    return [loss for revision, sql in downgrades.items() for loss in _losses_of(connection, revision, sql, beside)]


def refuse_losses(losses: Sequence[Loss]) -> None:
    """Refuse the downgrade before it begins, if a loss is certain; `row_guard` watches for the others.

    Raises:
        DataLossError: names what would be lost.
    """
    if certain := ", ".join(loss.what for loss in losses if loss.certain):
        raise DataLossError(f"MLOPS_ENV is production and this downgrade would lose {certain}; nothing was changed")


def _tables_beside_others(connection: Connection) -> set[int]:
    """The oids of the registered copies and logs, whose rows are nothing that can be lost."""
    as_written = {"no_parameters": True}  # they hold a %
    if not connection.exec_driver_sql(MAY_BE_READ, execution_options=as_written).scalar_one():
        return set()
    copies = connection.exec_driver_sql(READ, execution_options=as_written).all()
    return {oid for _, *beside in copies for oid in beside}


def _losses_of(connection: Connection, revision: str, sql: str | None, beside: Collection[int]) -> Iterator[Loss]:
    plain = without_texts(sql or "")
    if sql is None or _TABLES_GO.search(plain):
        yield Loss(f"what revision {revision} takes away", certain=False)
        return
    certain = dict(_removed(plain))
    may_keep = _MAY_KEEP.search(sql) is not None
    # A literal or a function's body may be run, too: DO does.
    for table, column in {**certain, **dict(_removed(sql))}:
        loss = _count(connection, table, column, beside)
        if loss is not None:
            yield replace(loss, certain=certain.get((table, column), False) and not may_keep)


def _removed(sql: str) -> Iterator[tuple[tuple[str, str | None], bool]]:
    """The tables and columns that the SQL removes, as written, and whether it removes all their rows."""
    alters = _ALTER.findall(sql)
    # A table that the downgrade itself renames still has its old name now.
    renamed = {new: old for old, rest in alters for new in _RENAMED.findall(rest)}
    for match in _ROWS_GO.finditer(sql):
        for table in re.findall(NAME, match[1]):
            yield (renamed.get(table, table), None), not _SOME_ROWS_GO.match(sql, match.start())
    for table, rest in alters:
        for column in filter(None, _COLUMN_GOES.findall(rest)):
            yield (renamed.get(table, table), column), True


def _count(connection: Connection, written: str, column: str | None, beside: Collection[int]) -> Loss | None:
    """Count what goes with the table, or with the column; None if nothing does."""
    table = written if _QUALIFIED.fullmatch(written) else f"public.{written}"  # where a revision's statements look
    name = None if column is None else stored_name(column)
    found = connection.execute(_FIND, {"table": table, "column": name}).first()
    if found is None:
        return None
    oid, qualified, root, hidden_by, estimate, name, generated, default, type_ = found
    if root in beside or qualified == TABLE_COPIES:
        return None
    if column is not None and (generated or name is None):
        return None
    place = written.removeprefix("public.") + ("" if column is None else f".{column}")
    if hidden_by is not None:
        return Loss(f"rows of {place}, which cannot be counted behind {hidden_by}", table=oid)
    condition = "true" if column is None else holds_own_value(name, constant_default(default, type_))
    about = ""
    try:
        with connection.begin_nested():
            count = f"SELECT count(*) FROM {qualified} WHERE {condition}"
            # A name or a default can hold a %.
            rows = connection.exec_driver_sql(count, execution_options={"no_parameters": True}).scalar_one()
    except DBAPIError as error:
        if not isinstance(error.orig, (QueryCanceled, LockNotAvailable)):
            raise
        about, rows = "about ", estimate
    return Loss(f"{about}{rows_in_words(rows)} of {place}", table=oid) if rows else None
