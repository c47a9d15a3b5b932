"""Reads the tables as a transaction sees them, and finds what a statement did to their rows and values."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_db.migration.guard.row_values import HIDDEN_BY, constant_default
from mlops_db.revisions.tables import POSITIONS_TABLE
from mlops_db.server.guests import SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (its only name)

_TABLES = f"""
    SELECT c.oid::bigint, quote_ident(n.nspname), quote_ident(c.relname),
           coalesce(pg_partition_root(c.oid)::oid, c.oid)::bigint, pg_relation_filenode(c.oid)::bigint,
           pg_stat_get_xact_tuples_inserted(c.oid), pg_stat_get_xact_tuples_updated(c.oid),
           pg_stat_get_xact_tuples_deleted(c.oid), {HIDDEN_BY.format(table="c.oid")},
           (SELECT jsonb_object_agg(a.attnum, jsonb_build_array(
                       quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                       pg_get_expr(d.adbin, d.adrelid)))::text
              FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
           {{sharded_by}}
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
       AND c.oid IS DISTINCT FROM to_regclass('public.alembic_version')
       AND c.oid IS DISTINCT FROM to_regclass('{POSITIONS_TABLE}')
"""
# A statement that drops, empties or rewrites a table takes this lock. Without it, another session made the change.
_LOCKED = """
    SELECT relation::bigint FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted
"""
# A statement that changes rows takes this lock, also on a table whose rows are in shards.
_WRITTEN = """
    SELECT relation::bigint FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
"""
_SHARDED_BY = """
           (SELECT coalesce(quote_ident(pg_catalog.column_to_column_name(d.logicalrelid, d.partkey)), '')
              FROM pg_catalog.pg_dist_partition AS d WHERE d.logicalrelid = c.oid)
"""
_LENGTH = re.compile(r"\(.*?\)")


@dataclass(frozen=True)
class Column:
    """A column; its name and type as SQL has them, its default as from `constant_default`."""

    name: str
    type: str
    default: str | None

    @property
    def kind(self) -> str:
        """Its type without a length."""
        return _LENGTH.sub("", self.type)


@dataclass(frozen=True)
class Table:
    """A table at one moment: names as in SQL, counters of this transaction, all but the generated columns.

    Of a table whose rows are in shards of Citus, PostgreSQL has no counters and an empty file.
    """

    oid: int
    schema: str
    name: str
    root: int
    file: int | None
    inserted: int
    updated: int
    deleted: int
    hidden_by: str | None
    columns: Mapping[int, Column]
    sharded_by: str | None = None

    @property
    def in_shards(self) -> bool:
        """Whether its rows are in shards; `sharded_by` is the column that says in which, empty if none does."""
        return self.sharded_by is not None

    @property
    def sql(self) -> str:
        """Its name with its schema."""
        return f"{self.schema}.{self.name}"

    @property
    def only(self) -> str:
        """`ONLY ` for a table with rows of its own; a partitioned one stands for its partitions."""
        return "ONLY " if self.file else ""

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.name if self.schema == "public" else self.sql


Tables = dict[int, Table]


@dataclass
class Harm:
    """What a statement has done to a table, or to a partitioned table and its partitions: the tables of one root.

    Attributes:
        whole: tables that it has dropped or emptied.
        inserted: how many rows it has inserted.
        updated: how many rows it has updated.
        deleted: how many rows it has deleted.
        gone: numbers of the root's columns that it has dropped.
        values: whether it may have changed values in others.
        locks: whether it has locked a table exclusively.
    """

    whole: list[Table] = field(default_factory=list)
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    gone: set[int] = field(default_factory=set)
    values: bool = False
    locks: bool = False

    def __bool__(self) -> bool:
        """Whether anything may be lost."""
        return bool(self.whole or self.deleted or self.gone or self.values)

    def add(self, other: Harm) -> None:
        """Add what happened to another table of the same root."""
        self.whole += other.whole
        self.inserted += other.inserted
        self.updated += other.updated
        self.deleted += other.deleted
        self.gone |= other.gone
        self.values |= other.values
        self.locks |= other.locks

    def covers(self, other: Harm) -> bool:
        """Whether a measurement for this harm includes all that the other harm needs."""
        return (
            self.deleted > 0 or (not other.deleted and {t.oid for t in other.whole} <= {t.oid for t in self.whole})
        ) and (self.values or (not other.values and other.gone <= self.gone))


def read_tables(cursor: Cursor, *, on_citus: bool = False) -> tuple[Tables, set[int]]:
    """Read the tables, without temporary ones, and which of them this transaction has locked exclusively."""
    with on_safe_path(cursor):
        cursor.execute(_LOCKED)
        locked = {oid for (oid,) in cursor.fetchall()}
        cursor.execute(_TABLES.format(sharded_by=_SHARDED_BY if on_citus else "NULL"))
        found = {}
        for row in cursor.fetchall():
            columns = {
                int(number): Column(name, type_, constant_default(default, type_))
                for number, (name, type_, default) in json.loads(row[-2] or "{}").items()
            }
            found[row[0]] = Table(*(*row[:-2], columns, row[-1]))
    return found, locked


def read_written(cursor: Cursor) -> set[int]:
    """The tables in which this transaction may have changed rows, by its locks."""
    with on_safe_path(cursor):
        cursor.execute(_WRITTEN)
        return {oid for (oid,) in cursor.fetchall()}


def find_harm(cursor: Cursor, before: Table, after: Table | None, locked: Collection[int]) -> Harm:
    """Find what happened to a table between two looks.

    Args:
        cursor: of the transaction.
        before: the table at the first look.
        after: the table at the second look; None if it was gone.
        locked: the tables that the transaction has locked exclusively, at the second look.
    """
    if after is None:
        return Harm(whole=[before], locks=True) if before.oid in locked and before.file else Harm()
    harm = Harm(
        inserted=max(after.inserted - before.inserted, 0),
        updated=max(after.updated - before.updated, 0),
        deleted=max(after.deleted - before.deleted, 0),
        values=after.updated > before.updated,
        locks=before.oid in locked,
    )
    if before.oid in locked:
        harm.gone = set(before.columns.keys() - after.columns.keys()) if before.oid == before.root else set()
        if before.file == after.file:
            pass
        elif query_value(cursor, _is_empty(after)):
            harm.whole = [before]
        elif harm.inserted:  # emptied and filled again: its rows are to be compared
            harm.deleted = max(harm.deleted, 1)
        else:
            harm.values = True
    return harm


def _is_empty(table: Table) -> str:
    """A query for whether a table with a new file has no rows."""
    if table.in_shards:
        return f"SELECT NOT EXISTS (SELECT 1 FROM ONLY {table.sql})"
    return f"SELECT pg_relation_size({table.oid}) = 0"


def query_value(cursor: Cursor, query: str) -> Any:
    """The first value of a query's first row."""
    with on_safe_path(cursor):
        cursor.execute(query)
        row = cursor.fetchone()
        return row and row[0]


@contextmanager
def on_safe_path(cursor: Cursor) -> Iterator[None]:
    """Run a query on the safe search path, and leave the revision's path as it is."""
    cursor.execute(f"SAVEPOINT mlops_db_aside; SET LOCAL search_path = {SAFE_PATH}")
    yield
    cursor.execute("ROLLBACK TO SAVEPOINT mlops_db_aside; RELEASE SAVEPOINT mlops_db_aside")
