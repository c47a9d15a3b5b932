"""Keeping the partitions and the series of monitoring_metrics: the functions of revision 0018, a transaction a step.

The functions do the work, so that pg_cron and an Airflow task do the same. What is added here is what a command owes
its user: a plan, progress, and trying again instead of making everybody wait.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from mlops_db.errors import UsageError
from mlops_db.migration.blockers import Watch
from mlops_db.migration.progress import Progress
from mlops_db.migration.retry import with_retries
from mlops_db.migration.session import migration_connection
from mlops_db.server.failures import translate_statement_failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from sqlalchemy import Connection

    from mlops_db.settings import Settings

# Whoever waits for the table keeps all others waiting behind; dropping and creating take a few milliseconds.
LOCK_TIMEOUT_MS = 300
# Moving a month of rows can take minutes, and nothing can be done about it halfway.
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
_PLAN = text("""
    SELECT 'create', 'monitoring_metrics_' || to_char(month, 'YYYY_MM'), NULL::bigint, NULL
      FROM mlops_internal.metric_partitions() AS later,
           generate_series(later.lower, date_trunc('month', now(), 'UTC') + interval '3 months', '1 month') AS month
     WHERE later.upper = 'infinity'
    UNION ALL
    SELECT 'move', 'monitoring_metrics_' || to_char(month, 'YYYY_MM'), rows, NULL
      FROM (
          SELECT date_trunc('month', timestamp, 'UTC') AS month, count(*) AS rows
            FROM mlops_internal.monitoring_metrics_earlier
           WHERE timestamp >= date_trunc('month', now(), 'UTC') - interval '10 years'
           GROUP BY 1 ORDER BY 1 DESC
      ) AS months
    UNION ALL
    SELECT 'drop', 'monitoring_metrics_' || to_char(month, 'YYYY_MM'), rows, NULL
      FROM (
          SELECT date_trunc('month', timestamp, 'UTC') AS month, count(*) AS rows
            FROM mlops_internal.monitoring_metrics_earlier
           WHERE timestamp >= date_trunc('month', now(), 'UTC') - interval '10 years'
           GROUP BY 1 ORDER BY 1
      ) AS moved
     WHERE month + interval '1 month'
           <= CASE WHEN CAST(:keep AS interval) <= interval '1000 years' THEN now() - CAST(:keep AS interval) END
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
    """Something that maintenance does, or would do.

    Attributes:
        action: `create`, `move` (rows into the month that they belong to) or `drop` a partition; `register` series that
            the catalogue lacks; `advance` a sequence that would give ids that rows have already.
        name: the partition in mlops_internal, the catalogue, or the sequence.
        rows: how many rows are moved, by the statistics dropped, or registered; None where none are, or where it is not
            counted.
        size: what dropping frees, in PostgreSQL's words; None otherwise.
    """

    action: str
    name: str
    rows: int | None = None
    size: str | None = None


def read_interval(keep: str) -> str:
    """Read how long metrics are kept: `90d`, `12w`, `6mo` or `2y`; returns PostgreSQL's interval for it.

    Raises:
        UsageError: it is none of these, or not above 0.
    """
    match = re.fullmatch(r"([0-9]+)(d|w|mo|y)", keep)
    if match is None or len(match[1]) > _MAX_DIGITS or int(match[1]) == 0:
        raise UsageError(
            f"--keep: {keep!r} is not a time to keep metrics for",
            hint="Write a whole number from 1 to 9999 with its unit: 90d, 12w, 6mo or 2y.",
        )
    return f"{match[1]} {_UNITS[match[2]]}"


def planned(settings: Settings, *, keep: str | None) -> list[Step]:
    """What maintenance would do now; only reads.

    Months without rows that come along, so that the partitions leave no gap, are not told.

    Args:
        settings: where the database is.
        keep: PostgreSQL's interval that metrics are kept for; None keeps them for ever.

    Raises:
        ConnectionFailedError: no connection.
        StatementFailedError: the server refused.
    """
    with _connected(settings) as connection:
        return [Step(*row) for row in connection.execute(_PLAN, {"keep": keep})]


def maintain(settings: Settings, *, keep: str | None, progress: TextIO | None = None) -> list[Step]:
    """Create partitions ahead, move early and late rows into their months, drop what is older than `keep`.

    Then mend what rows lack that came past the triggers, by logical replication or without them: the entries of their
    series in the catalogue, and sequences that go on after them. Nothing that is in the catalogue changes.

    Each step is a transaction of its own; interrupted, the next call goes on where this one stopped. Two at once wait
    for each other. model_versions and retraining_decisions are never touched.

    Args:
        settings: where the database is; the role owns the tables.
        keep: PostgreSQL's interval that metrics are kept for; None keeps them for ever.
        progress: a stream that is told what happens; None for none.

    Returns:
        What was done.

    Raises:
        ConnectionFailedError: no connection.
        NotPermittedError: the role does not own the tables.
        RefusedError: somebody held the table for longer than the settings' `retry_for`; the message names who.
        StatementFailedError: the server refused.
    """
    told = Progress(progress)
    try:
        with _connected(settings) as connection:
            return _carried_out(settings, connection, keep, told)
    finally:
        told.stop()


def _carried_out(settings: Settings, connection: Connection, keep: str | None, progress: Progress) -> list[Step]:
    pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    connection.commit()
    watch = Watch(settings, pid, progress, lock_timeout_ms=LOCK_TIMEOUT_MS)
    steps: list[Step] = []
    with watch.watching():
        for action, statement in _STEPS.items():
            before = -1
            while before != len(steps):
                before = len(steps)

                def attempt(action: str = action, statement: str = statement) -> None:
                    connection.rollback()
                    done = connection.execute(text(statement), {"keep": keep} if action == "drop" else {}).all()
                    connection.commit()
                    for name, rows in done:
                        if name is not None:
                            steps.append(Step(action, name, rows))
                            progress.note(f"{action} {name}")

                with_retries(
                    attempt,
                    position=lambda: len(steps),
                    blockers=watch.take_blockers,
                    retry_for_ms=settings.retry_for,
                    show_queries=False,
                    progress=progress,
                )
    return steps


@contextmanager
def _connected(settings: Settings) -> Iterator[Connection]:
    """A connection as a migration run has it, with failures in our words."""
    with (
        translate_statement_failures(settings),
        migration_connection(
            settings, lock_timeout=LOCK_TIMEOUT_MS, statement_timeout=STATEMENT_TIMEOUT_MS
        ) as connection,
    ):
        yield connection
