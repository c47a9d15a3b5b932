"""Records what the runs of a revision did: statements, locks, and the database before and after. Rules read it."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import event

from mlops_db.drift.catalogue import Catalogue, read_catalogue
from mlops_db.lint.judged import IS_JUDGED, read_unjudged
from mlops_db.migration.transaction import statement_text
from mlops_db.project import SCHEMAS
from mlops_db.revisions.tables import VERSION_TABLE
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.lint.revision_source import RevisionSource
    from mlops_db.settings import Settings

Row = dict[str, Any]
Named = dict[int, tuple[str, str, str]]  # by oid: name, kind, and the table or type
# No batch of an upgrade should have more rows.
BATCH = 10_000

_RELATIONS = f"""
    SELECT c.oid::bigint, coalesce(pg_partition_root(c.oid)::oid, c.oid)::bigint, n.nspname, c.relname, c.relkind::text,
           pg_relation_filenode(c.oid)::bigint
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY (%(schemas)s) AND c.relkind IN ('r', 'p', 'v', 'm') AND {IS_JUDGED}
"""
# A partition's constraints and indexes get their names from its table's; the index of a constraint has its name.
_NAMES = """
    SELECT k.oid::bigint, k.conname,
           CASE k.contype WHEN 'c' THEN 'CHECK' WHEN 'f' THEN 'FOREIGN KEY' WHEN 'p' THEN 'PRIMARY KEY'
                          WHEN 'u' THEN 'UNIQUE' WHEN 'x' THEN 'EXCLUDE' END,
           coalesce(nullif(k.conrelid, 0)::regclass::text, k.contypid::regtype::text)
      FROM pg_constraint AS k JOIN pg_namespace AS n ON n.oid = k.connamespace
     WHERE n.nspname = ANY (%(schemas)s) AND k.contype IN ('c', 'f', 'u', 'p', 'x')
       AND k.conparentid = 0 AND k.coninhcount = 0
       AND k.conrelid IS DISTINCT FROM to_regclass('public.alembic_version')
     UNION ALL
    SELECT c.oid, c.relname, 'index', i.indrelid::regclass::text
      FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY (%(schemas)s) AND NOT c.relispartition
       AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
     ORDER BY 4, 2
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
    """A database at one moment.

    Attributes:
        relations: its tables and views that the rules judge, by oid.
        catalogue: what the revisions have made.
        names: its constraints and indexes.
        copies: whether a table is copied by several revisions, of which some have still to run.
        rows: the rows of each table, by the table's oid.
        writers: how many rows of each table each transaction has written, as PostgreSQL keeps it with the row (xmin).
    """

    relations: dict[int, Relation]
    catalogue: Catalogue
    names: Named
    copies: bool
    rows: dict[int, list[Row]] = field(default_factory=dict)
    writers: dict[int, Counter[str]] = field(default_factory=dict)

    @property
    def tables(self) -> dict[int, Relation]:
        """The tables, each with all its partitions as one."""
        return {oid: relation for oid, relation in self.relations.items() if relation.is_table and relation.root == oid}

    def files(self, root: int) -> set[tuple[int, int | None]]:
        """The files that hold the rows of a table: a rewrite or a TRUNCATE makes others."""
        return {(oid, relation.file) for oid, relation in self.relations.items() if relation.root == root}


@dataclass
class Step:
    """One migration of one revision, in one direction.

    Attributes:
        direction: `upgrade` or `downgrade`.
        before: the database before it.
        after: the database after it.
        statements: what it sent, in order.
        transactions: the lock modes that each of its transactions held on each relation when it was committed.
            Statements outside of a transaction have released theirs by then: they are not among these.
    """

    direction: str
    before: Moment
    after: Moment = field(init=False)
    statements: list[str] = field(default_factory=list)
    transactions: list[dict[int, set[str]]] = field(default_factory=list)

    def changed_whole(self) -> list[int]:
        """The tables of which it changed every row, without a rewrite."""
        return [
            oid
            for oid, writers in self.before.writers.items()
            if writers
            and self.after.writers.get(oid)
            and not writers.keys() & self.after.writers[oid].keys()
            and self.before.files(oid) == self.after.files(oid)
        ]


@dataclass
class Run:
    """A revision, and what happened when it ran.

    Attributes:
        file: its source.
        script: Alembic's object for it.
        parents: the revisions that it follows; `base` for the first one.
        config: Alembic's configuration, which leads to the database of the online runs.
        scripted: the database where the scripts of `--sql` run.
        steps: upgrade, downgrade, and upgrade again; fewer if one failed.
        whole_way: if it ends a copy of a table, what was there before the first revision of the copy, and after a
            downgrade to there.
        refused: the writes that worked before the upgrade and not after it, each with the server's error.
        made: what all revisions up to this one make.
        error: why it does not run.
        broken_constraint: the constraint that rows violated then, if an earlier revision made it.
        broken_file: the file of that earlier revision.
    """

    file: RevisionSource
    script: Script
    parents: tuple[str, ...]
    config: Config
    scripted: Settings
    steps: list[Step] = field(default_factory=list)
    whole_way: tuple[Catalogue, Catalogue] | None = None
    refused: dict[str, psycopg2.Error] = field(default_factory=dict)
    made: Catalogue = field(default_factory=dict)
    error: Exception | None = None
    broken_constraint: str | None = None
    broken_file: str | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether it is one of the baseline, which some rules do not hold for."""
        return self.file.is_baseline


@dataclass(frozen=True)
class Head:
    """A database at head, and how it came there.

    Attributes:
        runs: every revision, in order.
        database: the database.
        server: the settings for more scratch databases on its server.
        config: Alembic's configuration, which leads to the database.
    """

    runs: list[Run]
    database: Settings
    server: Settings
    config: Config


def read_schema(settings: Settings) -> Catalogue:
    """The catalogue of a database without Alembic's own table, which the revisions do not make."""
    with open_cursor(settings) as cursor:
        return _read_schema(cursor)


def _read_schema(cursor: Cursor) -> Catalogue:
    found = read_catalogue(cursor)
    return {name: found[name] for name in found if VERSION_TABLE not in (name.name, name.within)}


def read_moment(settings: Settings, since: Moment | None = None) -> Moment:
    """Read what is in a database now: only the rows, if the schema is still that of an earlier moment."""
    with open_cursor(settings) as cursor:
        if since is None:
            catalogue = _read_schema(cursor)
            cursor.execute(_NAMES, {"schemas": list(SCHEMAS)})
            names = {oid: (name, kind, on) for oid, name, kind, on in cursor.fetchall()}
            unjudged = read_unjudged(cursor)
            cursor.execute(_RELATIONS, {"schemas": list(SCHEMAS), "unjudged": unjudged})
            relations = {oid: Relation(*rest) for oid, *rest in cursor.fetchall()}
            moment = Moment(relations, catalogue, names, copies=bool(unjudged))
        else:
            moment = replace(since, rows={}, writers={})
        for oid, table in moment.tables.items():
            cursor.execute(sql.SQL("SELECT xmin::text, to_jsonb(t) FROM {} AS t").format(table.sql))
            rows = cursor.fetchall()
            moment.rows[oid] = [row for _, row in rows]
            moment.writers[oid] = Counter(writer for writer, _ in rows)
        return moment


class Watch:
    """Records the statements and locks of a run's connection.

    Attributes:
        step: where it records them.
    """

    def __init__(self, connection: Connection) -> None:
        """Watch this connection, which has to be open, from now on."""
        self.step: Step | None = None
        driver: Any = connection.connection.dbapi_connection
        driver.cursor_factory = self._cursor_class()
        event.listen(connection, "commit", self._note_locks)

    def note(self, query: str | bytes | sql.Composable, cursor: psycopg2.extensions.cursor) -> None:
        """Called before each statement is sent."""
        if self.step is not None:
            self.step.statements.append(statement_text(query, cursor))

    def _note_locks(self, connection: Connection) -> None:
        """Called before each transaction is committed, which still holds all of its locks."""
        if self.step is None:
            return
        locks: dict[int, set[str]] = {}
        driver: Any = connection.connection.dbapi_connection
        with closing(psycopg2.extensions.cursor(driver)) as cursor:
            cursor.execute(_LOCKS)
            for relation, mode in cursor.fetchall():
                name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
                locks.setdefault(relation, set()).add(name)
        self.step.transactions.append(locks)

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
