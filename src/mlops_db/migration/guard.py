"""What a run refuses before it changes anything: a database that is not ours to change, and the loss of rows.

Which rows a downgrade would lose is read off its SQL here, so that nothing has happened yet when it is refused. What
SQL does not show is for `migration.judge`, which sees what a downgrade does.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import DataLossError
from mlops_db.migration.row_values import HIDDEN_BY, own_value, rows_in_words, text_of_default
from mlops_db.migration.statements import without_texts
from mlops_db.revisions.gate import refuse_behind_head, refuse_wrong_rows
from mlops_db.revisions.remains import refuse_remains
from mlops_db.revisions.tables import VERSION_TABLE, reading_fault, refuse_to_read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from alembic.runtime.migration import MigrationContext
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.revisions.graph import Graph


def read_only_ours(migration: MigrationContext, target: str) -> None:
    """Let Alembic read its table only where its owner may be believed, whenever it looks.

    Args:
        migration: a configured context of the run.
        target: where the connection goes, for the messages.

    `get_current_heads` raises RefusedError from now on if alembic_version is not to be read.
    """
    connection, alembics = migration.connection, migration.get_current_heads
    assert connection is not None

    def current_heads() -> tuple[str, ...]:
        found = connection.exec_driver_sql(reading_fault(VERSION_TABLE), execution_options=_AS_IT_STANDS).all()
        for (fault,) in found:
            if fault:
                refuse_to_read(VERSION_TABLE, fault, target)
        return alembics() if found else ()  # what was not there just now may be a guest's by the time it is read

    migration.get_current_heads = current_heads  # type: ignore[method-assign]  # of this one context


def refuse_wrong_database(migration: MigrationContext, graph: Graph, target: str) -> None:
    """Stop if the database is not in a state that the command can start from.

    Only reads, and leaves the transaction that it read in to the caller.

    Args:
        migration: the configured context of the run.
        graph: the revisions of the run.
        target: where the connection goes, for the messages.

    Raises:
        RefusedError: alembic_version is not to be read.
        UnknownRevisionError: `alembic_version` names a revision that this checkout does not have.
        RecordedRevisionError: its rows exclude each other, unless `alembic stamp --purge` deletes them; or there is
            none, and there should be.
        UnmanagedDatabaseError: the tables are there, made by hand. `alembic stamp` may go on: it is the way out.
        BehindHeadError: `alembic check` and `--autogenerate` compare with head, and the database is not there.
    """
    connection = migration.connection
    assert connection is not None
    current = migration.get_current_heads()
    refuse_wrong_rows(current, graph, target, overlap=not migration.opts.get("purge"))
    if not current and "purge" not in migration.opts:
        with closing(connection.connection.cursor()) as cursor:
            refuse_remains(cast("Cursor", cursor), graph, target)
    if "revision_context" in migration.opts:
        refuse_behind_head(current, graph, target)


@dataclass(frozen=True)
class Loss:
    """What a downgrade step takes away for good.

    Attributes:
        what: in the words of a message: `12 rows of model_versions`.
        certain: false if the downgrade writes elsewhere, too, and may have brought them there by then, or if its SQL
            cannot be told without running it, or does not say that it is run.
    """

    what: str
    certain: bool = True


_PART = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_NAME = rf"{_PART}(?:\.{_PART})?"
_IF_EXISTS = r"(?:IF\s+EXISTS\s+)?"
_TABLES_GO = re.compile(
    rf"\b(?:DROP\s+TABLE\s+{_IF_EXISTS}|TRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?|DELETE\s+FROM\s+(?:ONLY\s+)?)"
    rf"({_NAME}(?:\s*,\s*{_NAME})*)",
    re.IGNORECASE,
)
_ALTER = re.compile(rf"\bALTER\s+TABLE\s+{_IF_EXISTS}(?:ONLY\s+)?({_NAME})((?:{_PART}|[^;\"])*)", re.IGNORECASE)
# A column can be called identity; one called constraint has quotes.
_COLUMN_GOES = re.compile(
    rf"\bALTER\s+(?:COLUMN\s+)?{_PART}\s+DROP\b|\bDROP\s+(?!CONSTRAINT[\s\"])(?:COLUMN\s+)?{_IF_EXISTS}({_PART})",
    re.IGNORECASE,
)
_RENAMED = re.compile(rf"\s+RENAME\s+TO\s+({_PART})", re.IGNORECASE)
_AS_IT_STANDS = {"no_parameters": True}  # a name or a default can hold a %
_TOOK_TOO_LONG = ("57014", "55P03")  # query_canceled, lock_not_available
_QUALIFIED = re.compile(rf"{_PART}\.{_PART}")
# The table as the revision finds it, and the column, if one is asked for.
_FIND = text(f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), {HIDDEN_BY.format(table="c.oid")},
           greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 1)::bigint,
           quote_ident(a.attname), a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid),
           format_type(a.atttypid, a.atttypmod)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = :column AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.oid = to_regclass(:table)
""")
_SCHEMA_GOES = re.compile(r"\bDROP\s+SCHEMA\b", re.IGNORECASE)
# What may carry rows or values elsewhere before they go, or only says what a rule or a function is to do one day.
_MAY_KEEP = re.compile(
    r"\b(?:(?:INSERT|MERGE|SELECT\b[^;]*)\s+INTO|UPDATE\b[^;]*\sSET|COPY\b[^;]*\sFROM|CREATE\s+(?:\w+\s+)?TABLE\b[^;]*\sAS"
    r"|CREATE\s+(?:OR\s+REPLACE\s+)?(?:RULE|FUNCTION|PROCEDURE))\b",
    re.IGNORECASE,
)
_SOME_ROWS_GO = re.compile(r'DELETE\b(?:"[^"]*"|[^;"])*?\bWHERE\b', re.IGNORECASE)


def losses(connection: Connection, downgrades: Mapping[str, str | None]) -> list[Loss]:
    """What downgrades would lose, by the SQL that they write and the rows that are there.

    Reads only, under the connection's timeouts and without row level security; a table that cannot be counted within
    them counts by the planner's estimate.

    Args:
        connection: where the rows are.
        downgrades: the SQL of each revision's downgrade; None if it cannot be told without running it.
    """
    return [loss for revision, sql in downgrades.items() for loss in _losses_of(connection, revision, sql)]


def refuse_losses(found: Sequence[Loss]) -> None:
    """Refuse the downgrade before it begins, unless no loss is certain: the rest is judged while it runs.

    Raises:
        DataLossError: names what would be lost.
    """
    certain = [loss.what for loss in found if loss.certain]
    if certain:
        raise DataLossError(
            f"MLOPS_ENV is production and this downgrade would lose {', '.join(certain)}; nothing was changed"
        )


def _losses_of(connection: Connection, revision: str, sql: str | None) -> Iterator[Loss]:
    plain = without_texts(sql or "")
    if sql is None or _SCHEMA_GOES.search(plain):
        yield Loss(f"what revision {revision} takes away", certain=False)
        return
    said = dict(_gone(plain))
    may_keep = _MAY_KEEP.search(sql) is not None
    # What a literal or a body says may be run, too: DO does.
    for table, column in {**said, **dict(_gone(sql))}:
        what = _counted(connection, table, column)
        if what is not None:
            yield Loss(what, certain=said.get((table, column), False) and not may_keep)


def _gone(sql: str) -> Iterator[tuple[tuple[str, str | None], bool]]:
    """The tables and columns that go, as written, and whether they do with all their rows."""
    alters = _ALTER.findall(sql)
    # What the downgrade itself names anew still has its old name now.
    renamed = {new: old for old, rest in alters for new in _RENAMED.findall(rest)}
    for match in _TABLES_GO.finditer(sql):
        for table in re.findall(_NAME, match[1]):
            yield (renamed.get(table, table), None), not _SOME_ROWS_GO.match(sql, match.start())
    for table, rest in alters:
        for column in filter(None, _COLUMN_GOES.findall(rest)):
            yield (renamed.get(table, table), column), True


def _counted(connection: Connection, written: str, column: str | None) -> str | None:
    """What goes with the table, or with the column; None if nothing does."""
    table = written if _QUALIFIED.fullmatch(written) else f"public.{written}"  # where a revision's statements look
    name = None if column is None else column[1:-1].replace('""', '"') if column.startswith('"') else column.lower()
    found = connection.execute(_FIND, {"table": table, "column": name}).first()
    if found is None:
        return None
    qualified, hidden_by, estimate, name, generated, default, type_ = found
    if column is not None and (generated or name is None):
        return None
    place = written.removeprefix("public.") + ("" if column is None else f".{column}")
    if hidden_by is not None:
        return f"rows of {place}, which cannot be counted behind {hidden_by}"
    condition = "true" if column is None else own_value(name, text_of_default(default, type_))
    about = ""
    try:
        with connection.begin_nested():
            rows = connection.exec_driver_sql(
                f"SELECT count(*) FROM {qualified} WHERE {condition}", execution_options=_AS_IT_STANDS
            ).scalar_one()
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in _TOOK_TOO_LONG:
            raise
        about, rows = "about ", estimate
    return f"{about}{rows_in_words(rows)} of {place}" if rows else None
