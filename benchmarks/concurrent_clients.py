"""Clients that use a database with many metrics while Alembic runs, and how long each revision makes them wait."""

import datetime as dt
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from mlops_db.project import alembic_ini
from mlops_db.settings import Settings
from throwaway_server import connect

MONTHS = 24
DECISIONS = 1_000
# The old columns have no time zone; their clock is UTC.
FILL = """
SET timezone = 'UTC';
INSERT INTO monitoring_metrics (timestamp, created_at, metric_type, metric_name, metric_value, metadata)
SELECT moment, moment, (ARRAY['coverage', 'drift', 'performance'])[1 + mod(i, 3)], 'metric_' || mod(i / 3, 100), sin(i),
       '{{"window": "1d", "samples": 1000}}'
  FROM generate_series(1, {rows}) AS i
 CROSS JOIN LATERAL (SELECT now()::timestamp - ({rows} - i) * interval '{months} months' / {rows} AS moment) AS at;
INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score, brier_score)
SELECT 'run_' || i, i, 'archived', 0.9, 0.1 FROM generate_series(1, {decisions}) AS i;
INSERT INTO retraining_decisions (action, candidate_mlflow_run_id, gate_results)
SELECT 'reject', 'run_' || i, '{{"metric_improvement": {{"passed": false}}}}' FROM generate_series(1, {decisions}) AS i;
"""
WRITES = (
    "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'metric_1', 1)",
    "INSERT INTO retraining_decisions (action, candidate_mlflow_run_id) VALUES ('reject', 'run_1')",
    "INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES (gen_random_uuid(), '1', 'staging')",
)
READS = (
    "SELECT metric_type, metric_name, metric_value FROM monitoring_metrics LIMIT 10",
    "SELECT * FROM v_decision_history LIMIT 10",
    "SELECT * FROM v_model_timeline LIMIT 10",
    "EXPLAIN SELECT * FROM v_recent_monitoring",  # takes the locks of a reader, but not the time
)
_PARTITIONED = "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass('public.monitoring_metrics')"


@dataclass
class Client:
    """A client that runs statements while Alembic runs.

    Attributes:
        statements: the statements, run in turn, each in its own transaction.
        by_month: those for a monitoring_metrics that is partitioned by month; empty if they are the same.
        waits: when each statement began and ended.
        errors: the errors of the server.
    """

    statements: tuple[str, ...]
    by_month: tuple[str, ...] = ()
    waits: list[tuple[dt.datetime, dt.datetime]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, settings: Settings) -> Iterator[None]:
        """Repeat the statements until the block ends."""
        stopped = threading.Event()

        def run() -> None:
            with connect(settings) as connection:
                while not stopped.wait(0.005):
                    months = self.by_month and connection.execute(_PARTITIONED).fetchone() == (True,)
                    for statement in self.by_month if months else self.statements:
                        started = _now()
                        try:
                            connection.execute(statement)
                        except psycopg.Error as error:
                            self.errors.append(str(error).partition("\n")[0])
                        self.waits.append((started, _now()))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def longest(self, started: dt.datetime, finished: dt.datetime) -> float:
        """The longest statement of a step, in seconds. A statement belongs to the step in which most of it ran."""
        within = [0.0]
        for began, ended in self.waits:
            overlap = (min(ended, finished) - max(began, started)).total_seconds()
            if overlap > 0 and overlap >= (ended - began).total_seconds() / 2:
                within.append((ended - began).total_seconds())
        return max(within)


@dataclass(frozen=True)
class Step:
    """An upgrade or downgrade of one revision, and the times at which it began and was committed."""

    revision: str
    started: dt.datetime
    finished: dt.datetime


def alembic(
    settings: Settings, *arguments: str, ini: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `alembic` in its own process, with these environment variables."""
    command = [str(Path(sys.executable).parent / "alembic"), "-c", str(ini or alembic_ini()), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_"))}
    environment = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": "",
        "MLOPS_DB_NAME": settings.database,
    }
    return subprocess.run(command, env=kept | environment | variables, capture_output=True, check=False, text=True)


def steps(settings: Settings, direction: str) -> list[Step]:
    """The steps in that direction, in order. A step that was retried counts once."""
    with connect(settings) as connection:
        found = connection.execute(
            """
            SELECT revision, min(started_at), max(finished_at) FROM mlops_internal.migration_history
             WHERE direction = %s GROUP BY revision ORDER BY min(started_at)
            """,
            [direction],
        )
        return [Step(*row) for row in found]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)
