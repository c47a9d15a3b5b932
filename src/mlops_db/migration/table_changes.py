"""What a transaction does to tables: each of them at one look, and what happened between two."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlops_db.migration.row_values import HIDDEN_BY, text_of_default
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
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
       AND c.oid IS DISTINCT FROM to_regclass('public.alembic_version')
"""
# What others do to a table meanwhile is not this transaction's; whatever drops, empties or rewrites one locks it so.
_LOCKED = """
    SELECT relation::bigint FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted
"""
_LENGTH = re.compile(r"\(.*?\)")


@dataclass(frozen=True)
class Column:
    """A column; its name and type as SQL has them, its default as `text_of_default` has it."""

    name: str
    type: str
    default: str | None

    @property
    def kind(self) -> str:
        """Its type without a length."""
        return _LENGTH.sub("", self.type)


@dataclass(frozen=True)
class Table:
    """A table at one look; names as SQL has them, counters of this transaction, columns but for generated ones."""

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

    @property
    def sql(self) -> str:
        """Its name with its schema."""
        return f"{self.schema}.{self.name}"

    @property
    def only(self) -> str:
        """What keeps a statement to the table itself; of a partitioned one, the partitions are meant."""
        return "ONLY " if self.file else ""

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.name if self.schema == "public" else self.sql


Tables = dict[int, Table]


@dataclass
class Harm:
    """What a statement has done to the tables of one root, which is the table itself if it has no partitions.

    Attributes:
        whole: tables that it has dropped or emptied.
        inserted: how many rows it has inserted.
        deleted: how many rows it has deleted.
        gone: numbers of the root's columns that it has dropped.
        values: whether it may have changed values in others.
        locks: whether it keeps everybody else from a table.
    """

    whole: list[Table] = field(default_factory=list)
    inserted: int = 0
    deleted: int = 0
    gone: set[int] = field(default_factory=set)
    values: bool = False
    locks: bool = False

    def __bool__(self) -> bool:
        """Whether anything may be lost."""
        return bool(self.whole or self.deleted or self.gone or self.values)

    def add(self, other: Harm) -> None:
        """Take in what happened to another table of the same root."""
        self.whole += other.whole
        self.inserted += other.inserted
        self.deleted += other.deleted
        self.gone |= other.gone
        self.values |= other.values
        self.locks |= other.locks

    def covers(self, other: Harm) -> bool:
        """Whether who measures this one has measured the other, too."""
        return (
            self.deleted > 0 or (not other.deleted and {t.oid for t in other.whole} <= {t.oid for t in self.whole})
        ) and (self.values or (not other.values and other.gone <= self.gone))


def look(cursor: Cursor) -> tuple[Tables, set[int]]:
    """The tables as they are now, temporary ones left out, and which of them this transaction keeps everybody from."""
    with aside(cursor):
        cursor.execute(_LOCKED)
        locked = {oid for (oid,) in cursor.fetchall()}
        cursor.execute(_TABLES)
        found = {}
        for row in cursor.fetchall():
            columns = {
                int(number): Column(name, type_, text_of_default(default, type_))
                for number, (name, type_, default) in json.loads(row[-1] or "{}").items()
            }
            found[row[0]] = Table(*(*row[:-1], columns))
    return found, locked


def harm_between(cursor: Cursor, before: Table, after: Table | None, locked: Collection[int]) -> Harm:
    """What happened to a table between two looks.

    Args:
        cursor: of the transaction.
        before: the table at the first look.
        after: the table at the second look; None if it was gone.
        locked: the tables that the transaction kept everybody from, at the second look.
    """
    if after is None:
        return Harm(whole=[before], locks=True) if before.oid in locked and before.file else Harm()
    harm = Harm(
        inserted=max(after.inserted - before.inserted, 0),
        deleted=max(after.deleted - before.deleted, 0),
        values=after.updated > before.updated,
        locks=before.oid in locked,
    )
    if before.oid in locked:
        harm.gone = set(before.columns.keys() - after.columns.keys()) if before.oid == before.root else set()
        if before.file == after.file:
            pass
        elif value(cursor, f"SELECT pg_relation_size({after.oid}) = 0"):
            harm.whole = [before]
        elif harm.inserted:  # emptied and filled again: its rows are to be compared
            harm.deleted = max(harm.deleted, 1)
        else:
            harm.values = True
    return harm


def value(cursor: Cursor, query: str) -> Any:
    """What a query says, in its first row."""
    with aside(cursor):
        cursor.execute(query)
        row = cursor.fetchone()
        return row and row[0]


@contextmanager
def aside(cursor: Cursor) -> Iterator[None]:
    """Ask on the safe search path, and leave the revision's as it is."""
    cursor.execute(f"SAVEPOINT mlops_db_aside; SET LOCAL search_path = {SAFE_PATH}")
    yield
    cursor.execute("ROLLBACK TO SAVEPOINT mlops_db_aside; RELEASE SAVEPOINT mlops_db_aside")
