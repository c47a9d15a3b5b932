"""What a database is: where, which server, which revision, which of the six objects, and how large they are.

Read with psycopg2 alone: containers ask this at every start, and loading SQLAlchemy and Alembic takes ten times as long
as answering.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import printable
from mlops_db.project import PRESENT_SQL, TABLES, VIEWS
from mlops_db.revisions import gate
from mlops_db.revisions.graph import Revision, package_graph, revisions
from mlops_db.server.connection import open_cursor
from mlops_db.server.failures import first_line
from mlops_db.server.guests import EVERYBODY_MAY_CREATE
from mlops_db.settings import Settings

COUNT_FOR_S = 1.8  # with the least of every question, two seconds
LEAST_MS = 10
STATEMENT_TIMEOUT = "2s"
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
     WHERE c.oid = ANY(%s::oid[]) AND {gate.OWNS_OURS}
"""

# So does a function.
_OUR_FUNCTIONS = f"""
    SELECT count(*) FROM pg_proc AS p JOIN pg_roles AS role ON role.oid = p.proowner
     WHERE p.oid IN (to_regprocedure('mlops_internal.missing_series(integer)'),
                     to_regprocedure('mlops_internal.late_sequences()')) AND {gate.OWNS_OURS}
"""


@dataclass(frozen=True)
class ObjectStatus:
    """One of the six objects.

    Attributes:
        name: its name in schema public.
        kind: `table` or `view`.
        present: whether it is there.
        rows: number of rows; None if it is missing, or somebody else's, or a view that cannot be counted.
        exact: whether `rows` was counted; otherwise it is the planner's estimate, because a table cannot be counted.
        bytes: size on disk with indexes and TOAST; None for views, which hold nothing, and where it is not known.
        size: the same in PostgreSQL's words, such as `24 kB`.
        uncounted: why it was not counted, in the server's words; None if it was, or if the time was over.
    """

    name: str
    kind: str
    present: bool = False
    rows: int | None = None
    exact: bool = False
    bytes: int | None = None
    size: str | None = None
    uncounted: str | None = None


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
        upkeep: what rows lack that came past the triggers, and `mlops-db maintain` mends; empty also where it takes too
            long to find out, or is not for this role.
    """

    target: str
    server: str
    current: str | None
    head: str
    pending: tuple[Revision, ...]
    objects: tuple[ObjectStatus, ...]
    everybody_may_create: bool
    upkeep: tuple[str, ...]

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
        return Remaining(package_graph().pending(*current), missing, _value(cursor, f"SELECT {EVERYBODY_MAY_CREATE}"))


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
        RefusedError: one of the six objects is somebody else's, and what the command does would run what he wrote.
    """
    with _reading(settings) as cursor:
        gate.require_head(cursor, settings.target)


def database_status(settings: Settings) -> DatabaseStatus:
    """Read the status of the settings' database; changes nothing, and counts for two seconds in all at most.

    Whatever keeps an object from being counted, such as a full disk, is told with the object.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
    """
    with _reading(settings) as cursor:
        current, oids = _revision_and_oids(cursor, settings)
        cursor.execute(_OURS, (list(oids.values()),))
        ours = {oid for (oid,) in cursor.fetchall()}
        attempts = _Attempts(cursor)
        pending = package_graph().pending(*current)
        return DatabaseStatus(
            target=settings.target,
            server=_value(cursor, "SHOW server_version"),
            current=" and ".join(current) or None,
            head=revisions()[-1].id,
            pending=pending,
            everybody_may_create=_value(cursor, f"SELECT {EVERYBODY_MAY_CREATE}"),
            objects=(
                *(_table_status(attempts, name, oids.get(name), ours) for name in TABLES),
                *(_view_status(attempts, name, oids.get(name), ours) for name in VIEWS),
            ),
            # The functions read the tables.
            upkeep=() if pending or not ours.issuperset(map(oids.get, TABLES)) else tuple(_upkeep(attempts)),
        )


@contextmanager
def _reading(settings: Settings) -> Iterator[Cursor]:
    with open_cursor(settings, readonly=True) as cursor:
        # LOCAL, so that behind a transaction pooler it does not stay with a stranger's session.
        cursor.execute("SET LOCAL statement_timeout = %s", (STATEMENT_TIMEOUT,))
        cursor.execute("SET LOCAL lock_timeout = %s", (LOCK_TIMEOUT,))
        # What a policy hides is an error then, not a smaller number.
        cursor.execute("SET LOCAL row_security = off")
        yield cursor


def _revision_and_oids(cursor: Cursor, settings: Settings) -> tuple[tuple[str, ...], dict[str, int]]:
    current = gate.find_heads(cursor, settings.target)
    cursor.execute(PRESENT_SQL)
    return current, dict(cursor.fetchall())


class _Attempts:
    """Questions whose answers may take long, or fail: all of them have two seconds together."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.ends = time.monotonic() + COUNT_FOR_S

    def number(self, statement: str | sql.Composable, *parameters: object) -> tuple[int | None, str | None]:
        """The answer, or None and why there is none, in the server's words; without words, it is for want of time.

        One question has half of the time that is left, so that a large table leaves some for what comes after it.
        """
        milliseconds = max(LEAST_MS, int((self.ends - time.monotonic()) * 500))
        self.cursor.execute("SAVEPOINT attempt")
        self.cursor.execute("SET LOCAL statement_timeout = %s", (milliseconds,))
        number = reason = None
        try:
            number = _value(self.cursor, statement, *parameters)
        except psycopg2.Error as error:
            if self.cursor.connection.closed:
                raise
            reason = None if isinstance(error, psycopg2.errors.QueryCanceled) else printable(first_line(str(error)))
        self.cursor.execute("ROLLBACK TO SAVEPOINT attempt")  # the time limit, too
        return number, reason


def _table_status(attempts: _Attempts, name: str, oid: int | None, ours: set[int]) -> ObjectStatus:
    if oid is None:
        return ObjectStatus(name, "table")
    size, _ = attempts.number(_SIZE, oid, oid)
    rows, reason = _count(attempts, name, is_ours=oid in ours)
    exact = rows is not None
    if rows is None:
        estimate, _ = attempts.number(_ESTIMATE, oid, oid)
        rows = None if estimate is None or estimate < 0 else estimate  # -1: never analyzed
    pretty = None if size is None else _value(attempts.cursor, "SELECT pg_size_pretty(%s::bigint)", size)
    return ObjectStatus(name, "table", present=True, rows=rows, exact=exact, bytes=size, size=pretty, uncounted=reason)


def _view_status(attempts: _Attempts, name: str, oid: int | None, ours: set[int]) -> ObjectStatus:
    if oid is None:
        return ObjectStatus(name, "view")
    rows, reason = _count(attempts, name, is_ours=oid in ours)
    return ObjectStatus(name, "view", present=True, rows=rows, exact=rows is not None, uncounted=reason)


def _upkeep(attempts: _Attempts) -> Iterator[str]:
    if attempts.number(_OUR_FUNCTIONS)[0] != 2:  # noqa: PLR2004  (both)
        return
    if attempts.number("SELECT count(*) FROM mlops_internal.missing_series(1)")[0]:
        yield "register series of monitoring_metrics that v_recent_monitoring lacks"
    if attempts.number("SELECT count(*) FROM mlops_internal.late_sequences()")[0]:
        yield "advance sequences whose next ids are taken"


def _count(attempts: _Attempts, name: str, *, is_ours: bool) -> tuple[int | None, str | None]:
    if not is_ours:
        return None, "it belongs to another role than alembic_version"
    return attempts.number(sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name)))


def _value(cursor: Cursor, statement: str | sql.Composable, *parameters: object) -> Any:
    cursor.execute(statement, parameters or None)
    row = cursor.fetchone()
    return row and row[0]
