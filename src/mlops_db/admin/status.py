"""Reads the status of a database: where it is, its server, its revision, the tables and views and their sizes.

It uses psycopg2 alone: containers ask for the status at every start, and importing SQLAlchemy and Alembic takes ten
times as long as answering.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import sql

from mlops_db.admin.cluster.state import VERSION, ClusterStatus, read_cluster
from mlops_db.errors import printable
from mlops_db.project import MISSING_REPORTING_SQL, PRESENT_SQL, TABLES, VIEWS
from mlops_db.revisions import gate
from mlops_db.revisions.graph import Revision, revisions
from mlops_db.revisions.tables import OWNS_OURS
from mlops_db.server.connection import open_cursor
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.failures import first_line
from mlops_db.server.guests import EVERYBODY_MAY_CREATE
from mlops_db.settings import Settings

# Two seconds, together with LEAST_MS of each query; one of the workers of Citus has LEAST_ON_WORKERS_MS.
COUNT_FOR_S = 1.8
LEAST_MS = 10
# Citus 14.0 on PostgreSQL 18 can crash the server if a statement is canceled while run_command_on_... connects to a
# worker. So its time is longer than connecting may take.
LEAST_ON_WORKERS_MS = 5_000
# What reads rows that may be in shards.
_IN_SHARDS = ("monitoring_metrics", "v_recent_monitoring")
STATEMENT_TIMEOUT = "2s"
LOCK_TIMEOUT = "200ms"


# Size and estimated rows of a table with its partitions; the tree has the table itself, too.
_SIZE = """
    SELECT coalesce(sum(pg_total_relation_size(relid)), pg_total_relation_size(%s))::bigint FROM pg_partition_tree(%s)
"""
_ESTIMATE = """
    SELECT coalesce(sum(c.reltuples) FILTER (WHERE c.reltuples > 0), nullif(max(c.reltuples), -1))::bigint
      FROM pg_class AS c
     WHERE c.relkind = 'r' AND (c.oid = %s OR c.oid IN (SELECT relid FROM pg_partition_tree(%s)))
"""


# Counting a view runs its code as the reader, so a view that another role made under a name of ours is not counted.
_OURS = f"""
    SELECT c.oid FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.oid = ANY(%s::oid[]) AND {OWNS_OURS}
"""

# The same holds for functions.
_OUR_FUNCTIONS = f"""
    SELECT count(*) FROM pg_proc AS p JOIN pg_roles AS role ON role.oid = p.proowner
     WHERE p.oid IN (to_regprocedure('mlops_internal.missing_series(integer)'),
                     to_regprocedure('mlops_internal.late_sequences()')) AND {OWNS_OURS}
"""

# The views of schema reporting, from revision 0024 on. to_regclass fails for a role that may not use the schema.
_OUR_PERIODS = f"""
    SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE (n.nspname, c.relname) = ('reporting', 'production_periods') AND {OWNS_OURS}
"""
_PRODUCTION = """
    SELECT model_name, model_version, since FROM reporting.production_periods WHERE in_production ORDER BY model_name
"""
# By the catalogue of series: it reads the newest row of each.
_NEWEST = "SELECT max(timestamp), min(age) FROM public.v_recent_monitoring"


class InProduction(NamedTuple):
    """A model version in production.

    Attributes:
        model_name: the model.
        model_version: its version.
        since: since when, in UTC; None if it was put into production by hand, so that nobody knows.
    """

    model_name: str
    model_version: str
    since: datetime | None


@dataclass(frozen=True)
class ObjectStatus:
    """A table or view of ours.

    Attributes:
        name: its name in schema public.
        kind: `table` or `view`.
        present: whether it is there.
        rows: number of rows; None if the object is missing or could not be counted.
        exact: whether `rows` was counted; otherwise it is the planner's estimate for a table.
        bytes: size on disk with indexes and TOAST; None for views, and if it is not known.
        size: the same as text, such as `24 kB`.
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
    """The status of a database.

    Attributes:
        target: where it is: user@host:port/database.
        server: PostgreSQL's version, such as `16.4`.
        current: the revision that it is at; None before the first one.
        head: the last revision of the package.
        is_newer: whether that is a newer revision than head, with which this code works.
        others: the revisions beside ours that it is at, of another project in the same alembic_version.
        pending: the revisions that an upgrade to head would run, in order.
        production: the versions in production, by the names of their models. None before revision 0024; it and the next
            two also if reading them takes too long, or if this role may not.
        newest_metric: the time of the newest metric, in UTC; None if there is none.
        newest_metric_age: how long ago that is.
        objects: the tables and views, in the specification's order.
        missing_reporting: the names of the views and functions that schema reporting has at head, and lacks here.
        everybody_may_create: whether every role may create objects in schema public, which other sessions could run.
        upkeep: the work that `mlops-db maintain` has for rows that came without triggers. Also empty if finding out
            takes too long, or if this role may not.
        cluster: what Citus has; None in a database without it.
    """

    target: str
    server: str
    current: str | None
    head: str
    is_newer: bool
    others: tuple[str, ...]
    pending: tuple[Revision, ...]
    production: tuple[InProduction, ...] | None
    newest_metric: datetime | None
    newest_metric_age: timedelta | None
    objects: tuple[ObjectStatus, ...]
    missing_reporting: tuple[str, ...]
    everybody_may_create: bool
    upkeep: tuple[str, ...]
    cluster: ClusterStatus | None

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the tables, views and functions that are missing at head."""
        return (*(item.name for item in self.objects if not item.present), *self.missing_reporting)

    @property
    def state(self) -> str:
        """`head`, `behind`, `drifted`, which is at head with an object missing, or `newer`."""
        if self.pending:
            return "behind"
        if self.missing:
            return "drifted"
        return "newer" if self.is_newer else "head"


class Remaining(NamedTuple):
    """The part of the status that `mlops-db init` needs.

    Attributes:
        position: where the database is.
        missing: the names of the tables, views and functions that are missing at head.
        everybody_may_create: as in `DatabaseStatus`.
    """

    position: gate.Position
    missing: tuple[str, ...]
    everybody_may_create: bool


def find_remaining(settings: Settings) -> Remaining:
    """Find what an upgrade of the settings' database would run, and which of the tables and views are missing.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        OutdatedCodeError: it is at a newer revision, where this code does not work.
        UnmanagedDatabaseError: its tables are there, made by hand.
    """
    with _open_reader(settings) as cursor:
        position = gate.find_position(cursor, settings.target)
        oids = _read_oids(cursor)
        missing = (*(name for name in (*TABLES, *VIEWS) if name not in oids), *_read_missing_reporting(cursor))
        return Remaining(position, missing, cursor.value(f"SELECT {EVERYBODY_MAY_CREATE}"))


def everybody_may_create(settings: Settings) -> bool:
    """Whether every role may create objects in the settings' database, in schema public.

    Raises:
        ConnectionFailedError: no connection.
    """
    with _open_reader(settings) as cursor:
        return bool(cursor.value(f"SELECT {EVERYBODY_MAY_CREATE}"))


def require_usable(settings: Settings) -> None:
    """Refuse a database that this code does not work with: at head it does, and at some newer revisions.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        OutdatedCodeError: it is at a newer revision, where this code does not work.
        UnmanagedDatabaseError: its tables are there, made by hand.
        BehindHeadError: it is at an earlier revision.
        RefusedError: a table or view of ours belongs to another role, and the command would run code of that role.
    """
    with _open_reader(settings) as cursor:
        gate.require_usable(cursor, settings.target)


def read_status(settings: Settings) -> DatabaseStatus:
    """Read the status of the settings' database; changes nothing, and counts for two seconds in all, on Citus for more.

    If an object cannot be counted, such as on a full disk, its status has the reason.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        OutdatedCodeError: it is at a newer revision, where this code does not work.
        UnmanagedDatabaseError: its tables are there, made by hand.
    """
    with _open_reader(settings) as cursor:
        position = gate.find_position(cursor, settings.target)
        pending = position.pending
        oids = _read_oids(cursor)
        cursor.execute(_OURS, (list(oids.values()),))
        ours = {oid for (oid,) in cursor.fetchall()}
        counter = _Counter(cursor)
        cursor.execute(f"SELECT current_setting('server_version'), {VERSION}")
        [(server, citus)] = cursor.fetchall()
        cluster = None if citus is None else read_cluster(counter, citus)
        production = None
        if counter.count(_OUR_PERIODS)[0]:
            periods, _ = counter.read(_PRODUCTION)
            production = None if periods is None else tuple(InProduction(*row) for row in periods)
        # Before schema reporting, the view may read every row.
        may_ask = production is not None and oids.get("v_recent_monitoring") in ours and not _lacks_rows(cluster)
        newest = counter.read_metrics(_NEWEST, cluster)[0] if may_ask else None
        newest_metric, newest_metric_age = newest[0] if newest else (None, None)
        return DatabaseStatus(
            target=settings.target,
            server=server,
            current=" and ".join(position.heads) or None,
            head=revisions()[-1].id,
            is_newer=position.is_newer,
            others=position.others,
            pending=pending,
            production=production,
            newest_metric=newest_metric,
            newest_metric_age=newest_metric_age,
            everybody_may_create=cursor.value(f"SELECT {EVERYBODY_MAY_CREATE}"),
            objects=tuple(_object_status(counter, name, oids.get(name), ours, cluster) for name in (*TABLES, *VIEWS)),
            missing_reporting=_read_missing_reporting(cursor),
            # The functions that find it read the tables.
            upkeep=()
            if pending or not ours.issuperset(map(oids.get, TABLES)) or _lacks_rows(cluster)
            else tuple(_find_upkeep(counter, cluster)),
            cluster=cluster,
        )


@contextmanager
def _open_reader(settings: Settings) -> Iterator[SafeCursor]:
    with open_cursor(settings, readonly=True) as cursor:
        # LOCAL: a transaction pooler may give the session to another client afterwards.
        cursor.execute("SET LOCAL statement_timeout = %s", (STATEMENT_TIMEOUT,))
        cursor.execute("SET LOCAL lock_timeout = %s", (LOCK_TIMEOUT,))
        # Rows that a policy hides become an error instead of a smaller number.
        cursor.execute("SET LOCAL row_security = off")
        yield cursor
        # Nothing is to be committed, and on Citus a worker that was lost after it had answered would refuse that.
        cursor.connection.rollback()


def _read_oids(cursor: SafeCursor) -> dict[str, int]:
    cursor.execute(PRESENT_SQL)
    return dict(cursor.fetchall())


def _read_missing_reporting(cursor: SafeCursor) -> tuple[str, ...]:
    cursor.execute(MISSING_REPORTING_SQL)
    return tuple(name for (name,) in cursor.fetchall())


class _Counter:
    """Runs queries that may take long, or fail. All together have two seconds; one of the workers has more."""

    def __init__(self, cursor: SafeCursor) -> None:
        self.cursor = cursor
        self.ends = time.monotonic() + COUNT_FOR_S

    def count(self, query: str | sql.Composable, *parameters: object) -> tuple[int | None, str | None]:
        """Return the number that the query gives; or None and the reason, as `read` does."""
        rows, reason = self.read(query, *parameters)
        return rows[0][0] if rows else None, reason

    def read(
        self, query: str | sql.Composable, *parameters: object, least_ms: int = LEAST_MS
    ) -> tuple[list[tuple[Any, ...]] | None, str | None]:
        """Return the query's rows; or None and the server's reason, which is None if the time was over.

        A query has half of the time that is left, so that a large table leaves some for the next ones.
        """
        milliseconds = max(least_ms, int((self.ends - time.monotonic()) * 500))
        self.cursor.execute("SAVEPOINT attempt")
        self.cursor.execute("SET LOCAL statement_timeout = %s", (milliseconds,))
        rows = reason = None
        try:
            self.cursor.execute(query, parameters or None)
            rows = self.cursor.fetchall()
        except psycopg2.Error as error:
            if self.cursor.connection.closed:
                raise
            reason = None if isinstance(error, psycopg2.errors.QueryCanceled) else printable(first_line(str(error)))
        self.cursor.execute("ROLLBACK TO SAVEPOINT attempt")  # the time limit, too
        return rows, reason

    def read_metrics(
        self, query: str | sql.Composable, cluster: ClusterStatus | None
    ) -> tuple[list[tuple[Any, ...]] | None, str | None]:
        """The same for a query of monitoring_metrics, which may be in shards: it is not begun when the time is over."""
        if not cluster or not cluster.tables:
            return self.read(query)
        if time.monotonic() >= self.ends:
            return None, None
        return self.read(query, least_ms=LEAST_ON_WORKERS_MS)


def _object_status(
    counter: _Counter, name: str, oid: int | None, ours: set[int], cluster: ClusterStatus | None
) -> ObjectStatus:
    kind = "table" if name in TABLES else "view"
    if oid is None:
        return ObjectStatus(name, kind)
    distributed = cluster and cluster.find_table(f"public.{name}")
    size = None
    if kind == "table":
        size = distributed.bytes if distributed else counter.count(_SIZE, oid, oid)[0]
    rows: int | None
    reason: str | None
    if _lacks_rows(cluster) and name in _IN_SHARDS:
        rows, reason = None, "not all workers answer"
    elif oid in ours:
        query = sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(name))
        counted, reason = counter.read_metrics(query, cluster) if name in _IN_SHARDS else counter.read(query)
        rows = counted[0][0] if counted else None
    else:
        rows, reason = None, "it belongs to another role than alembic_version"
    exact = rows is not None
    if kind == "table" and not exact:
        rows = distributed.rows if distributed else counter.count(_ESTIMATE, oid, oid)[0]
    pretty = counter.cursor.value("SELECT pg_size_pretty(%s::bigint)", (size,))
    return ObjectStatus(name, kind, present=True, rows=rows, exact=exact, bytes=size, size=pretty, uncounted=reason)


def _lacks_rows(cluster: ClusterStatus | None) -> bool:
    """Whether some shards are on nodes that do not answer: a query over all of them would wait, and fail."""
    return cluster is not None and not cluster.complete


def _find_upkeep(counter: _Counter, cluster: ClusterStatus | None) -> Iterator[str]:
    if counter.count(_OUR_FUNCTIONS)[0] != 2:  # noqa: PLR2004  (both)
        return
    least_ms = LEAST_ON_WORKERS_MS if cluster and cluster.tables else LEAST_MS
    missing, _ = counter.read("SELECT 1 FROM mlops_internal.missing_series(1)", least_ms=least_ms)
    if missing:
        yield "register series of monitoring_metrics that v_recent_monitoring lacks"
    late, _ = counter.read("SELECT 1 FROM mlops_internal.late_sequences()", least_ms=least_ms)
    if late:
        yield "advance sequences whose next ids are taken"
