"""What one migration did, for the rules to judge: what it sent and locked, and what was there before and after."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    Row = dict[str, Any]

_RELATIONS = """
    SELECT c.oid::bigint, coalesce(pg_partition_root(c.oid)::oid, c.oid)::bigint, n.nspname, c.relname, c.relkind::text,
           pg_relation_filenode(c.oid)::bigint
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p', 'v', 'm')
       AND c.relname NOT IN ('alembic_version', 'migration_history')
"""
_LOCKS = (
    "SELECT relation::bigint, mode FROM pg_locks WHERE locktype = 'relation' AND pid = pg_backend_pid() AND granted"
)


@dataclass(frozen=True)
class Relation:
    """A table or a view of ours.

    Attributes:
        root: the oid of the table that it is a partition of, in the end; its own if of none.
        schema: its schema.
        name: its name.
        kind: as in pg_class: `r` and `p` for tables, `v` and `m` for views.
        file: the number of the file that holds its rows; None if it has none.
    """

    root: int
    schema: str
    name: str
    kind: str
    file: int | None

    @property
    def is_table(self) -> bool:
        """Whether it is a table or a partition."""
        return self.kind in "rp"

    @property
    def sql(self) -> sql.Identifier:
        """Its name for statements."""
        return sql.Identifier(self.schema, self.name)

    @property
    def shown(self) -> str:
        """Its name for people."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Moment:
    """What is there at one moment: relations by oid, and the rows of each table, by the oid of its root."""

    relations: dict[int, Relation]
    rows: dict[int, list[Row]]

    @property
    def tables(self) -> dict[int, Relation]:
        """The tables, each with all its partitions as one."""
        return {oid: relation for oid, relation in self.relations.items() if relation.is_table and relation.root == oid}

    def files(self, root: int) -> set[tuple[int, int | None]]:
        """What holds the rows of a table: another file after a rewrite or a TRUNCATE."""
        return {(oid, relation.file) for oid, relation in self.relations.items() if relation.root == root}


@dataclass
class Step:
    """One migration of one revision, in one direction.

    Attributes:
        file: the revision's file name.
        direction: `upgrade` or `downgrade`.
        before: what was there.
        after: what it left.
        statements: what it sent, in order.
        transactions: the lock modes that each of its transactions held on each relation when it was committed.
            Statements outside of any transaction have let go of theirs when they end: they are not among these.
    """

    file: str
    direction: str
    before: Moment
    after: Moment = field(default_factory=lambda: Moment({}, {}))
    statements: list[str] = field(default_factory=list)
    transactions: list[dict[int, set[str]]] = field(default_factory=list)


def look(cursor: Cursor, *, rows: bool = True) -> Moment:
    """See what is there now, with the rows or without."""
    cursor.execute(_RELATIONS)
    relations = {oid: Relation(*rest) for oid, *rest in cursor.fetchall()}
    moment = Moment(relations, {})
    for oid, table in moment.tables.items() if rows else ():
        cursor.execute(sql.SQL("SELECT to_jsonb(t) FROM {} AS t").format(table.sql))
        moment.rows[oid] = [row for (row,) in cursor.fetchall()]
    return moment


def writers(cursor: Cursor, table: Relation) -> Counter[str]:
    """How many rows of a table each transaction has written, as PostgreSQL keeps it with the row."""
    cursor.execute(sql.SQL("SELECT xmin::text FROM {}").format(table.sql))
    return Counter(transaction for (transaction,) in cursor.fetchall())


class Watch:
    """Sees what goes over the connection of a run, for the step that is under way."""

    def __init__(self, connection: Connection) -> None:
        """Watch this connection, which has to be open, from now on."""
        self._step: Step | None = None
        driver: Any = connection.connection.dbapi_connection
        driver.cursor_factory = self._cursor_class()
        event.listen(connection, "commit", self._note_locks)

    @contextmanager
    def watching(self, step: Step) -> Iterator[None]:
        """Write down what happens in the block."""
        self._step = step
        try:
            yield
        finally:
            self._step = None

    def note(self, query: str | bytes | sql.Composable, cursor: psycopg2.extensions.cursor) -> None:
        """Called before each statement is sent."""
        if self._step is not None:
            text = query.as_string(cursor) if isinstance(query, sql.Composable) else query
            self._step.statements.append(text if isinstance(text, str) else text.decode(errors="replace"))

    def _note_locks(self, connection: Connection) -> None:
        """Called before each transaction is committed, which still holds all of its locks."""
        if self._step is None:
            return
        locks: dict[int, set[str]] = {}
        driver: Any = connection.connection.dbapi_connection
        with closing(psycopg2.extensions.cursor(driver)) as cursor:
            cursor.execute(_LOCKS)
            for relation, mode in cursor.fetchall():
                name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
                locks.setdefault(relation, set()).add(name)
        self._step.transactions.append(locks)

    def _cursor_class(self) -> type[psycopg2.extensions.cursor]:
        watch = self

        class WatchedCursor(psycopg2.extensions.cursor):
            def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
                watch.note(query, self)
                super().execute(query, vars)

            def executemany(self, query: Any, vars_list: Any) -> None:
                watch.note(query, self)
                super().executemany(query, vars_list)

        return WatchedCursor
