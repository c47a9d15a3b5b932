"""Which tables are distributed, by what, and how they are now; and the transaction that changes it."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from mlops_db.errors import RefusedError
from mlops_db.migration.blockers import BlockerWatch
from mlops_db.migration.lock import require_direct_connection, run_lock
from mlops_db.migration.progress import duration
from mlops_db.migration.retry import with_retries
from mlops_db.migration.session import migration_connection
from mlops_db.revisions import gate
from mlops_db.server.citus import has_citus, is_worker, list_distributed_tables, list_nodes
from mlops_db.server.connection import open_cursor
from mlops_db.server.failures import translate_statement_failures
from mlops_db.server.guests import SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.migration.progress import Progress
    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

COLUMN = "model_name"
# In the order in which they are distributed; the second one lies beside the first.
SERIES, METRICS = "mlops_internal.metric_series", "public.monitoring_metrics"
DISTRIBUTED = (SERIES, METRICS)
SHARDS_A_NODE = 4
MAX_SHARDS = 1024

# A step that waits for the table blocks all later queries on it, so it waits in short tries.
LOCK_TIMEOUT_MS = 300
# Rows cannot be moved in parts.
STATEMENT_TIMEOUT_MS = 24 * 3_600_000
# The lock_timeout has to hold on the workers, too; other SETs, such as of the path, are for this node alone.
BOUND_WAITS = (
    "SET LOCAL citus.propagate_set_commands = 'local'",
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
    "SET LOCAL citus.propagate_set_commands = 'none'",
)
# What the tables of all shards cost, with four months and four to eight shards, without any rows.
FIXED_S = 3.0
QUIET = "SET LOCAL client_min_messages = error"  # Citus tells about each step of its own
# Readers wait as well, from the beginning: a stronger lock at the end could deadlock with them, after all that work.
LOCK = f"LOCK TABLE {METRICS}, {SERIES} IN ACCESS EXCLUSIVE MODE"

# The two tables with their months.
TREE = f"""
    tree (oid) AS (
        SELECT '{SERIES}'::regclass::oid
         UNION ALL
        SELECT relid::oid FROM pg_partition_tree('{METRICS}')
    )
"""
_METHODS = """
    SELECT c.oid::regclass::text, d.partmethod::text FROM pg_catalog.pg_dist_partition AS d
      JOIN pg_class AS c ON c.oid = d.logicalrelid
     WHERE c.oid = ANY (%s::regclass[]) AND d.partmethod <> 'h'
"""
# Rows by the statistics. Only the coordinator knows the names of shards, and only a function finds them.
_PLAIN_ROWS = f"""
    WITH {TREE}
    SELECT coalesce(sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)), 0)::bigint,
           coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
      FROM tree JOIN pg_class AS c ON c.oid = tree.oid WHERE c.relkind = 'r'
"""
_ON_EACH_NODE = f"""
    SELECT coalesce(sum(greatest(pg_stat_get_live_tuples(shard.oid),
                                 (SELECT c.reltuples FROM pg_class AS c WHERE c.oid = shard.oid))), 0)::bigint || ' ' ||
           coalesce(sum(pg_total_relation_size(shard.oid)), 0)
      FROM pg_catalog.pg_dist_shard AS s
     CROSS JOIN LATERAL (SELECT to_regclass(pg_catalog.shard_name(s.logicalrelid, s.shardid))::oid) AS shard (oid)
     WHERE s.logicalrelid = '{SERIES}'::regclass
        OR s.logicalrelid IN (SELECT relid FROM pg_partition_tree('{METRICS}') WHERE isleaf)
"""
_DISTRIBUTED_ROWS = """
    SELECT sum(split_part(result, ' ', 1)::bigint)::bigint, sum(split_part(result, ' ', 2)::bigint)::bigint
      FROM pg_catalog.run_command_on_all_nodes(%s) WHERE success
"""


class Layout(NamedTuple):
    """How the two tables are.

    Attributes:
        shards: how many shards the distributed ones have; None if none is distributed.
        distributed: which of them are.
    """

    shards: int | None
    distributed: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A step, done or planned.

    Attributes:
        action: `distribute` or `bring back` a table, `rewrite` a function.
        name: the table or function.
    """

    action: str
    name: str


@dataclass(frozen=True)
class Outcome:
    """What was done, or would be.

    Attributes:
        shards: how many shards the tables have afterwards; None if they are plain.
        steps: what is to do; empty if all is done.
        rows: how many rows move, by the statistics.
        size: how many bytes these have, with their indexes.
        stall_s: how long readers and writers of the metrics wait, by what was measured.
    """

    shards: int | None
    steps: tuple[Step, ...]
    rows: int
    size: int
    stall_s: float

    @property
    def expectation(self) -> str:
        """Rows, size and the expected stall, for people."""
        return (
            f"about {self.rows:,} rows, {self.size / 1e6:,.1f} MB; readers and writers of the metrics wait about "
            f"{duration(self.stall_s)}"
        )


def read_layout(cursor: Cursor) -> Layout:
    """Read from Citus' catalogue which of the two tables are distributed.

    Raises:
        RefusedError: they are distributed in another way.
    """
    if not has_citus(cursor):
        return Layout(None, ())
    cursor.execute(_METHODS, (list(DISTRIBUTED),))
    wrong = [f"{name} is {'a reference table' if method == 'n' else 'in other shards'}" for name, method in cursor]
    found = {
        name: table
        for table in list_distributed_tables(cursor)
        if (name := f"{table.schema}.{table.name}") in DISTRIBUTED
    }
    wrong += [f"{name} is by {table.column}" for name, table in found.items() if table.column != COLUMN]
    if len({table.colocation for table in found.values()}) > 1:
        wrong.append("the two tables are not colocated")
    if wrong:
        raise RefusedError(
            f"the tables are distributed in another way than by {COLUMN}: {', '.join(wrong)}; nothing was changed",
            hint="Bring them back by hand first: "
            + " ".join(f"SELECT undistribute_table('{name}');" for name in DISTRIBUTED),
        )
    return Layout(next((table.shards for table in found.values()), None), tuple(found))


def count_rows(cursor: Cursor, layout: Layout) -> tuple[int, int]:
    """How many rows the two tables have, by the statistics, and how many bytes."""
    if layout.distributed:
        cursor.execute(_DISTRIBUTED_ROWS, (_ON_EACH_NODE,))
    else:
        cursor.execute(_PLAIN_ROWS)
    row: Any = cursor.fetchone()
    return row[0] or 0, row[1] or 0


@contextmanager
def looking(settings: Settings) -> Iterator[SafeCursor]:
    """A cursor that reads a database of ours that is usable, on the coordinator.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: this is a worker.
        MlopsDbError: the database is not at head, or not ours.
    """
    with open_cursor(settings) as cursor:
        refuse_worker(cursor, settings.target)
        gate.require_usable(cursor, settings.target)
        yield cursor


def refuse_worker(cursor: Cursor, target: str) -> None:
    """Refuse a worker: the tables are the coordinator's.

    Raises:
        RefusedError: this node is one.
    """
    if is_worker(cursor):
        coordinator = next((node.address for node in list_nodes(cursor) if node.is_coordinator), "another server")
        raise RefusedError(
            f"{target} is a worker of a Citus cluster, whose coordinator is {coordinator}; nothing was changed",
            hint="Connect to the coordinator: set POSTGRES_HOST and POSTGRES_PORT.",
        )


def change(settings: Settings, progress: Progress, steps: Callable[[Cursor], None]) -> None:
    """Take the steps in one transaction, under the run lock and with both tables locked.

    Args:
        settings: where the database is; the role owns the tables.
        progress: shows waits.
        steps: takes them; called again if it got no lock.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: somebody held a table, or the run lock, for too long; the message names who.
        StatementFailedError: the server refused.
    """
    pinned = replace(settings, lock_timeout=LOCK_TIMEOUT_MS, statement_timeout=STATEMENT_TIMEOUT_MS)
    with translate_statement_failures(settings), migration_connection(pinned) as connection:
        require_direct_connection(connection)
        with run_lock(connection, wait_ms=settings.lock_wait, progress=progress):
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            watch = BlockerWatch(settings, pid, progress, lock_timeout_ms=LOCK_TIMEOUT_MS)
            with watch.running():
                with_retries(
                    lambda: _in_transaction(connection, steps),
                    position=lambda: 0,
                    blockers=watch.describe_blockers,
                    retry_for_ms=settings.retry_for,
                    progress=progress,
                )


def _in_transaction(connection: Connection, steps: Callable[[Cursor], None]) -> None:
    connection.rollback()
    driver: Any = connection.connection.dbapi_connection
    try:
        with closing(driver.cursor()) as cursor:  # not a SafeCursor: Citus takes no second command beside DDL
            for statement in (f"SET LOCAL search_path = {SAFE_PATH}", QUIET, *BOUND_WAITS, LOCK):
                cursor.execute(statement)
            steps(cursor)
        driver.commit()
    except BaseException:
        if not driver.closed:
            driver.rollback()
        raise
