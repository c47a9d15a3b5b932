"""What a run refuses before it changes anything: a database that is not ours to change, and the loss of rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import BehindHeadError, DataLossError, UnknownRevisionError, UnmanagedDatabaseError
from mlops_db.schema.objects import PRESENT_SQL, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection


def refuse_wrong_database(migration: MigrationContext, target: str) -> None:
    """Stop if the database is not in a state that the command can start from.

    Only reads, and leaves the transaction that it read in to the caller.

    Args:
        migration: the configured context of the run.
        target: where the connection goes, for the messages.

    Raises:
        UnknownRevisionError: `alembic_version` names a revision that this checkout does not have.
        UnmanagedDatabaseError: the tables are there, made by hand. `alembic stamp` may go on: it is the way out.
        BehindHeadError: `alembic check` and `--autogenerate` compare with head, and the database is not there.
    """
    script, connection = migration.script, migration.connection
    assert script is not None
    assert connection is not None
    current = migration.get_current_heads()
    known = {revision.revision for revision in script.walk_revisions()}
    for revision in current:
        if revision not in known:
            raise UnknownRevisionError(revision, target)
    stamping = "purge" in migration.opts
    if not current and not stamping:
        present = {name for name, _ in connection.execute(text(PRESENT_SQL))}
        tables = [name for name in TABLES if name in present]
        if tables:
            raise UnmanagedDatabaseError(tables, target)
    if "revision_context" in migration.opts and set(current) != set(script.get_heads()):
        raise BehindHeadError(", ".join(current) or None, target)


@dataclass(frozen=True)
class Loss:
    """What a downgrade step takes away for good.

    Attributes:
        what: in the words of a message: `12 rows of model_versions`.
    """

    what: str


_PART = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_NAME = rf"{_PART}(?:\.{_PART})?"
_IF_EXISTS = r"(?:IF\s+EXISTS\s+)?"
_TABLES_GO = re.compile(
    rf"\b(?:DROP\s+TABLE\s+{_IF_EXISTS}|TRUNCATE\s+(?:TABLE\s+)?(?:ONLY\s+)?|DELETE\s+FROM\s+(?:ONLY\s+)?)"
    rf"({_NAME}(?:\s*,\s*{_NAME})*)",
    re.IGNORECASE,
)
_ALTER = re.compile(rf"\bALTER\s+TABLE\s+{_IF_EXISTS}(?:ONLY\s+)?({_NAME})((?:{_PART}|[^;\"])*)", re.IGNORECASE)
# What is no column (DROP CONSTRAINT x, DROP NOT NULL) reads as one of that name, which is not there and counts nothing.
_COLUMN_GOES = re.compile(rf"\bDROP\s+(?:COLUMN\s+)?{_IF_EXISTS}({_PART})", re.IGNORECASE)
_RENAMED = re.compile(rf"\s+RENAME\s+TO\s+({_PART})", re.IGNORECASE)
_AS_IT_STANDS = {"no_parameters": True}  # a name or a default can hold a %
_TOOK_TOO_LONG = ("57014", "55P03")  # query_canceled, lock_not_available
_SCHEMA_GOES = re.compile(r"\bDROP\s+SCHEMA\b", re.IGNORECASE)


def losses(connection: Connection, downgrades: Mapping[str, str | None]) -> list[Loss]:
    """What downgrades would lose, by the SQL that they write and the rows that are there.

    Reads only, under the connection's timeouts; a table that cannot be counted within them counts by the planner's
    estimate.

    Args:
        connection: where the rows are.
        downgrades: the SQL of each revision's downgrade; None if it cannot be told without running it, which counts as
            a loss.
    """
    return [loss for revision, sql in downgrades.items() for loss in _losses_of(connection, revision, sql)]


def refuse_losses(found: Sequence[Loss]) -> None:
    """Refuse the downgrade.

    Raises:
        DataLossError: names what would be lost.
    """
    raise DataLossError(
        f"MLOPS_ENV is production and this downgrade would lose {', '.join(loss.what for loss in found)}; "
        "nothing was changed",
        hint="Take a backup (pg_dump), then say -x allow-data-loss=true if that is what you want.",
    )


def refuse_late_losses(connection: Connection, revision: str, sql: str | None) -> None:
    """Look once more inside the downgrade's transaction, with the tables locked against writers that came in between.

    Raises:
        DataLossError: a table that was empty holds rows now.
    """
    found = list(_losses_of(connection, revision, sql, lock=True))
    if found:
        refuse_losses(found)


def _losses_of(connection: Connection, revision: str, sql: str | None, *, lock: bool = False) -> Iterator[Loss]:
    if sql is None or _SCHEMA_GOES.search(sql):
        yield Loss(f"what revision {revision} takes away, which cannot be told without running it")
        return
    # What the downgrade itself names anew still has its old name now.
    alters = _ALTER.findall(sql)
    renamed = {new: old for old, rest in alters for new in _RENAMED.findall(rest)}
    for match in _TABLES_GO.finditer(sql):
        for table in re.findall(_NAME, match[1]):
            yield from _counted(connection, renamed.get(table, table), None, lock=lock)
    for table, rest in alters:
        for column in _COLUMN_GOES.findall(rest):
            yield from _counted(connection, renamed.get(table, table), column, lock=lock)


def _counted(connection: Connection, table: str, column: str | None, *, lock: bool) -> Iterator[Loss]:
    """Count what goes with the table, or with the column; nothing if nothing does."""
    oid = connection.execute(text("SELECT to_regclass(:table)::oid"), {"table": table}).scalar()
    condition = "true" if column is None else _own_values(connection, oid, column)
    if oid is None or condition is None:
        return
    if lock:
        connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", execution_options=_AS_IT_STANDS)
    about = ""
    try:
        with connection.begin_nested():
            rows = connection.exec_driver_sql(
                f"SELECT count(*) FROM {table} WHERE {condition}",
                execution_options=_AS_IT_STANDS,
            ).scalar_one()
    except DBAPIError as error:
        if lock or getattr(error.orig, "pgcode", None) not in _TOOK_TOO_LONG:
            raise
        about = "about "
        rows = connection.execute(
            text("SELECT greatest(reltuples, pg_stat_get_live_tuples(oid), 1)::bigint FROM pg_class WHERE oid = :oid"),
            {"oid": oid},
        ).scalar_one()
    if rows:
        place = table if column is None else f"{table}.{column}"
        yield Loss(f"{about}{rows:,} {'row' if rows == 1 else 'rows'} of {place}")


def _own_values(connection: Connection, oid: int | None, column: str) -> str | None:
    """The condition under which a row holds a value of its own in the column; None if no row can."""
    name = column[1:-1].replace('""', '"') if column.startswith('"') else column.lower()
    row = connection.execute(
        text(
            "SELECT a.attgenerated <> '', pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute AS a"
            " LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
            " WHERE a.attrelid = :oid AND a.attname = :name AND NOT a.attisdropped"
        ),
        {"oid": oid, "name": name},
    ).first()
    if row is None or row[0]:
        return None
    default = row[1]
    # What a constant default filled in comes back with the column; what the clock or a sequence filled in does not.
    if default is not None and re.fullmatch(r"'(?:[^']|'')*'(?:::[\w \"]+)?|-?[\d.]+|true|false", default):
        return f"{column}::text IS DISTINCT FROM ({default})::text"  # json, for one, has no equality
    return f"{column} IS NOT NULL"
