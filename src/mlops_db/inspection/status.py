"""What a database is: where, which server, which revision, which of the six objects, and how large they are.

Read with psycopg2 alone: containers ask this at every start, and loading SQLAlchemy and Alembic takes ten times as long
as answering.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import BehindHeadError
from mlops_db.revisions.graph import Revision, pending, revisions
from mlops_db.revisions.recorded import OWNS_OURS, recorded_revision
from mlops_db.schema.guests import EVERYBODY_MAY_CREATE
from mlops_db.schema.objects import PRESENT_SQL, TABLES, VIEWS
from mlops_db.server.connection import SafeCursor, connect, explained_statement_failure
from mlops_db.settings import Settings

COUNT_TIMEOUT = "2s"
LOCK_TIMEOUT = "200ms"


# Both of a table with its partitions; the first member of the tree is the table itself.
_SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(relid)), pg_total_relation_size(%s))::bigint FROM pg_partition_tree(%s)
"""
_ESTIMATE = """
    SELECT coalesce(sum(c.reltuples) FILTER (WHERE c.reltuples > 0), max(c.reltuples))::bigint
      FROM pg_class AS c
     WHERE c.relkind = 'r' AND (c.oid = %s OR c.oid IN (SELECT relid FROM pg_partition_tree(%s)))
"""


# A view runs as whoever reads it: one that a guest has made under a name of ours is not counted.
_OURS = f"""
    SELECT c.oid FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.oid = ANY(%s::oid[]) AND {OWNS_OURS}
"""


@dataclass(frozen=True)
class ObjectStatus:
    """One of the six objects.

    Attributes:
        name: its name in schema public.
        kind: `table` or `view`.
        present: whether it is there.
        rows: number of rows; None if it is missing, or somebody else's, or a view that takes too long to count or may
            not be read.
        exact: whether `rows` was counted; otherwise it is the planner's estimate, because counting a table took longer
            than two seconds, waited for a lock, was not permitted, or would have seen only what a policy shows.
        bytes: size on disk with indexes and TOAST; None for views, which hold nothing, and where it is not known.
        size: the same in PostgreSQL's words, such as `24 kB`.
    """

    name: str
    kind: str
    present: bool = False
    rows: int | None = None
    exact: bool = False
    bytes: int | None = None
    size: str | None = None


@dataclass(frozen=True)
class DatabaseStatus:
    """What a database is.

    Attributes:
        target: where it was found: user@host:port/database.
        server: PostgreSQL's version, such as `16.4`.
        current: the revision it is at; None before the first one.
        head: the last revision of this checkout.
        pending: what an upgrade to head would run, in that order.
        objects: the six objects, in the specification's order.
        everybody_may_create: whether every role may create objects in schema public, and so lay traps there.
    """

    target: str
    server: str
    current: str | None
    head: str
    pending: tuple[Revision, ...]
    objects: tuple[ObjectStatus, ...]
    everybody_may_create: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the six objects that are not there."""
        return tuple(item.name for item in self.objects if not item.present)

    @property
    def state(self) -> str:
        """`head`, `behind`, or `drifted`: at head, and an object is missing all the same."""
        if self.pending:
            return "behind"
        return "drifted" if self.missing else "head"


class Remaining(NamedTuple):
    """What is left to do.

    Attributes:
        pending: what an upgrade to head would run, in that order.
        missing: those of the six objects that are not there.
        everybody_may_create: as in `DatabaseStatus`.
    """

    pending: tuple[Revision, ...]
    missing: tuple[str, ...]
    everybody_may_create: bool


def what_remains(settings: Settings) -> Remaining:
    """What an upgrade of the settings' database would run, and which of the six objects are not there.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
    """
    with _reading(settings) as cursor:
        current, oids = _revision_and_oids(cursor, settings)
        missing = tuple(name for name in (*TABLES, *VIEWS) if name not in oids)
        return Remaining(pending(current) or (), missing, _value(cursor, f"SELECT {EVERYBODY_MAY_CREATE}"))


def everybody_may_create(settings: Settings) -> bool:
    """Whether every role may create objects in the settings' database, in schema public.

    Raises:
        ConnectionFailedError: no connection.
    """
    with _reading(settings) as cursor:
        return bool(_value(cursor, f"SELECT {EVERYBODY_MAY_CREATE}"))


def require_head(settings: Settings) -> None:
    """Refuse a database that is not at head.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
        BehindHeadError: it is at an earlier revision.
    """
    with _reading(settings) as cursor:
        current = recorded_revision(cursor, settings.target)
    if pending(current):
        raise BehindHeadError(current, settings.target)


def database_status(settings: Settings) -> DatabaseStatus:
    """Read the status of the settings' database; changes nothing, and counts for two seconds at most.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
    """
    with _reading(settings) as cursor:
        current, oids = _revision_and_oids(cursor, settings)
        cursor.execute(_OURS, (list(oids.values()),))
        ours = {oid for (oid,) in cursor.fetchall()}
        return DatabaseStatus(
            target=settings.target,
            server=_value(cursor, "SHOW server_version"),
            current=current,
            head=revisions()[-1].id,
            pending=pending(current) or (),
            objects=(
                *(_table_status(cursor, name, oids.get(name), ours) for name in TABLES),
                *(_view_status(cursor, name, oids.get(name), ours) for name in VIEWS),
            ),
            everybody_may_create=_value(cursor, f"SELECT {EVERYBODY_MAY_CREATE}"),
        )


@contextmanager
def _reading(settings: Settings) -> Iterator[Cursor]:
    with closing(connect(settings)) as connection:
        connection.set_session(readonly=True)
        try:
            with connection.cursor(cursor_factory=SafeCursor) as cursor:
                # LOCAL, so that behind a transaction pooler it does not stay with a stranger's session.
                cursor.execute("SET LOCAL statement_timeout = %s", (COUNT_TIMEOUT,))
                cursor.execute("SET LOCAL lock_timeout = %s", (LOCK_TIMEOUT,))
                # What a policy hides is an error then, not a smaller number.
                cursor.execute("SET LOCAL row_security = off")
                yield cursor
        except psycopg2.Error as error:
            raise explained_statement_failure(error, settings) from None


def _revision_and_oids(cursor: Cursor, settings: Settings) -> tuple[str | None, dict[str, int]]:
    current = recorded_revision(cursor, settings.target)
    cursor.execute(PRESENT_SQL)
    return current, dict(cursor.fetchall())


def _table_status(cursor: Cursor, name: str, oid: int | None, ours: set[int]) -> ObjectStatus:
    if oid is None:
        return ObjectStatus(name, "table")
    rows = _count(cursor, name) if oid in ours else None
    exact = rows is not None
    if rows is None:
        estimate = _value(cursor, _ESTIMATE, oid, oid)
        rows = None if estimate < 0 else estimate  # -1: never analyzed
    size = _attempted(cursor, _SIZE, oid, oid)
    pretty = _value(cursor, "SELECT pg_size_pretty(%s::bigint)", size)
    return ObjectStatus(name, "table", present=True, rows=rows, exact=exact, bytes=size, size=pretty)


def _view_status(cursor: Cursor, name: str, oid: int | None, ours: set[int]) -> ObjectStatus:
    if oid is None:
        return ObjectStatus(name, "view")
    rows = _count(cursor, name) if oid in ours else None
    return ObjectStatus(name, "view", present=True, rows=rows, exact=rows is not None)


def _count(cursor: Cursor, name: str) -> int | None:
    return _attempted(cursor, sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name)))


def _attempted(cursor: Cursor, statement: str | sql.Composable, *parameters: object) -> int | None:
    """A number, or None if it takes too long, as behind a lock, or is not for this role."""
    cursor.execute("SAVEPOINT attempt")
    try:
        number: int = _value(cursor, statement, *parameters)
    except (
        psycopg2.errors.QueryCanceled,
        psycopg2.errors.LockNotAvailable,
        psycopg2.errors.InsufficientPrivilege,
    ):
        cursor.execute("ROLLBACK TO SAVEPOINT attempt")
        return None
    return number


def _value(cursor: Cursor, statement: str | sql.Composable, *parameters: object) -> Any:
    cursor.execute(statement, parameters or None)
    row = cursor.fetchone()
    return row and row[0]
