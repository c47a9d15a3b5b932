"""Manages the partitions and the series of monitoring_metrics with the functions of revision 0020.

pg_cron and an Airflow task can call the same functions. This module adds a plan, progress, and retries in place of long
waits for locks.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import text

from mlops_db.admin.cluster.shards import ASK_NODES, read_shards
from mlops_db.errors import UsageError
from mlops_db.migration.blockers import BlockerWatch
from mlops_db.migration.progress import Progress
from mlops_db.migration.retry import with_retries
from mlops_db.migration.session import migration_connection
from mlops_db.server.citus import HAS_CITUS
from mlops_db.server.failures import translate_statement_failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from sqlalchemy import Connection

    from mlops_db.settings import Settings

_log = logging.getLogger("mlops_db.maintenance")

# A step that waits for the table blocks all later queries on it; creating and dropping take a few milliseconds.
LOCK_TIMEOUT_MS = 300
# Moving a month of rows can take minutes, and cannot be split.
STATEMENT_TIMEOUT_MS = 6 * 3_600_000
_UNITS = {"d": "days", "w": "weeks", "mo": "months", "y": "years"}
_MAX_DIGITS = 4

# In the order in which they are taken; each is repeated until it answers NULL.
_STEPS = {
    "create": "SELECT mlops_internal.create_next_partition(), NULL",
    "move": "SELECT mlops_internal.move_earlier_month(), NULL",
    "drop": "SELECT unnest(mlops_internal.drop_partitions(CAST(:keep AS interval))), NULL",
    "register": "SELECT 'metric_series', count FROM mlops_internal.register_missing_series() AS count WHERE count > 0",
    "advance": "SELECT unnest(mlops_internal.advance_sequences()), NULL",
}
# `create` and `move` repeat the conditions of the functions of revision 0020: those change the table, and a plan must
# not lock it. tests/cli/test_maintain.py holds plans to what a run then does.
_PLAN = text("""
    WITH early (month, rows) AS (
        SELECT date_trunc('month', timestamp, 'UTC'), count(*)
          FROM mlops_internal.monitoring_metrics_earlier
         WHERE timestamp >= date_trunc('month', now(), 'UTC') - interval '10 years'
         GROUP BY 1
    )
    SELECT 'create', 'monitoring_metrics_' || to_char(month, 'YYYY_MM'), NULL::bigint, NULL
      FROM mlops_internal.metric_partitions() AS later,
           generate_series(later.lower, date_trunc('month', now(), 'UTC') + interval '3 months', '1 month') AS month
     WHERE later.upper = 'infinity'
    UNION ALL
    (SELECT 'move', 'monitoring_metrics_' || to_char(month, 'YYYY_MM'), rows, NULL FROM early ORDER BY month DESC)
    UNION ALL
    (SELECT 'drop', 'monitoring_metrics_' || to_char(month, 'YYYY_MM'), rows, NULL FROM early
      WHERE month + interval '1 month'
            <= CASE WHEN CAST(:keep AS interval) <= interval '1000 years' THEN now() - CAST(:keep AS interval) END
      ORDER BY month)
    UNION ALL
    SELECT 'drop', old.name, greatest(c.reltuples, pg_stat_get_live_tuples(c.oid))::bigint,
           pg_size_pretty(pg_total_relation_size(c.oid))
      FROM mlops_internal.partitions_older_than(CAST(:keep AS interval)) AS old (name)
      JOIN pg_class AS c ON c.relname = old.name AND c.relnamespace = 'mlops_internal'::regnamespace
    UNION ALL
    SELECT 'register', 'metric_series', count(*), NULL FROM mlops_internal.missing_series() HAVING count(*) > 0
    UNION ALL
    SELECT 'advance', sequence, NULL, NULL FROM mlops_internal.late_sequences()
""")


@dataclass(frozen=True)
class Step:
    """A step of maintenance, done or planned.

    Attributes:
        action: `create`, `move` (rows into their month) or `drop` a partition; `register` series that the catalogue
            lacks; `advance` a sequence whose next ids are taken.
        name: the partition in mlops_internal, the catalogue, or the sequence.
        rows: rows to move, rows to drop (by the statistics), or series to register; None if there are none or if they
            are not counted.
        size: the space that dropping frees, such as `24 kB`; None for other actions.
    """

    action: str
    name: str
    rows: int | None = None
    size: str | None = None


def read_interval(keep: str) -> str:
    """Read how long metrics are kept: `90d`, `12w`, `6mo` or `2y`; returns PostgreSQL's interval for it.

    Raises:
        UsageError: it has another form, or is 0.
    """
    match = re.fullmatch(r"([0-9]+)(d|w|mo|y)", keep)
    if match is None or len(match[1]) > _MAX_DIGITS or int(match[1]) == 0:
        raise UsageError(
            f"--keep: {keep!r} is not a time to keep metrics for",
            hint="Write a whole number from 1 to 9999 with its unit: 90d, 12w, 6mo or 2y.",
        )
    return f"{match[1]} {_UNITS[match[2]]}"


def plan(settings: Settings, *, keep: str | None) -> list[Step]:
    """Plan what maintenance would do now; only reads.

    A run may also create months without rows between others, so that the partitions leave no gap. They are not planned.

    Args:
        settings: where the database is.
        keep: PostgreSQL's interval that metrics are kept for; None keeps them for ever.

    Raises:
        ConnectionFailedError: no connection.
        StatementFailedError: the server refused.
    """
    with _connect(settings) as connection:
        steps = [Step(*row) for row in connection.execute(_PLAN, {"keep": keep})]
        if any(step.size for step in steps):
            steps = _measure_shards(connection, steps)
        return steps


def _measure_shards(connection: Connection, steps: list[Step]) -> list[Step]:
    """The same steps; on Citus with the rows and sizes of the shards, which are left out unless all nodes say them."""
    if not connection.exec_driver_sql(f"SELECT {HAS_CITUS}").scalar_one():
        return steps
    answers = connection.exec_driver_sql(ASK_NODES).all()
    known = all(success for _, success, _ in answers)
    rows: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for shard in (shard for answer in answers if known for shard in read_shards(*answer)):
        rows[shard.partition] += shard.rows
        sizes[shard.partition] += shard.bytes
    return [_measured(connection, step, rows, sizes) if step.size else step for step in steps]


def _measured(connection: Connection, step: Step, rows: Counter[str], sizes: Counter[str]) -> Step:
    partition = f"mlops_internal.{step.name}"
    if partition not in sizes:
        return replace(step, rows=None, size=None)
    size = connection.execute(text("SELECT pg_size_pretty(CAST(:size AS bigint))"), {"size": sizes[partition]})
    return replace(step, rows=rows[partition], size=size.scalar_one())


def maintain(settings: Settings, *, keep: str | None, progress: TextIO | None = None) -> list[Step]:
    """Create partitions ahead, move early and late rows into their months, drop what is older than `keep`.

    Then register the series of rows that came without triggers, such as by logical replication, and advance the
    sequences past their ids. Entries that are in the catalogue already do not change.

    Each step is a transaction, so the next call resumes an interrupted one. Two calls at once wait for each other.
    The rows of model_versions and retraining_decisions are never touched.

    Args:
        settings: where the database is; the role owns the tables.
        keep: PostgreSQL's interval that metrics are kept for; None keeps them for ever.
        progress: a stream for a line about each step; None logs them to `mlops_db.maintenance`.

    Returns:
        The steps that were taken.

    Raises:
        ConnectionFailedError: no connection.
        NotPermittedError: the role does not own the tables.
        RefusedError: somebody held the table for longer than the settings' `retry_for`; the message names who.
        StatementFailedError: the server refused.
    """
    reporter = Progress(progress, _log)
    reporter.fields["target"] = settings.target
    steps: list[Step] = []
    try:
        with _connect(settings) as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            watch = BlockerWatch(settings, pid, reporter, lock_timeout_ms=LOCK_TIMEOUT_MS)
            with watch.running():
                with_retries(
                    lambda: _take_steps(connection, keep, steps, reporter),
                    position=lambda: len(steps),
                    blockers=lambda: watch.describe_blockers(connection),
                    retry_for_ms=settings.retry_for,
                    progress=reporter,
                )
    finally:
        reporter.stop()
    return steps


def _take_steps(connection: Connection, keep: str | None, steps: list[Step], progress: Progress) -> None:
    """Take all steps that are left, and add each to `steps` once it is committed."""
    connection.rollback()
    for action, statement in _STEPS.items():
        parameters = {"keep": keep} if action == "drop" else {}
        done = [("", None)]
        while done:
            rows = connection.execute(text(statement), parameters).all()
            connection.commit()
            done = [(name, count) for name, count in rows if name is not None]
            for name, count in done:
                steps.append(Step(action, name, count))
                progress.note("%s %s", action, name, action=action, object=name, rows=count)


@contextmanager
def _connect(settings: Settings) -> Iterator[Connection]:
    """Connect as a migration run does; translate failures."""
    with (
        translate_statement_failures(settings),
        migration_connection(
            replace(settings, lock_timeout=LOCK_TIMEOUT_MS, statement_timeout=STATEMENT_TIMEOUT_MS)
        ) as connection,
    ):
        yield connection
