"""How long does the upgrade from revision 0004 take with many metrics, and how long does anybody wait meanwhile?

A writer inserts into the three tables, a row at a time, and a reader asks them and their views, all the time; each
wait is counted to the revision in which it ended. With --legacy-timezone the run has `-x legacy-timezone`, and so
rewrites the table once more, in revision 0007. Exit code 0 if nobody waited longer than a second for any revision but
those that rewrite.

    uv run python benchmarks/upgrade_with_rows.py
    uv run python benchmarks/upgrade_with_rows.py --rows 10000000 --programs /usr/lib/postgresql/15/bin
    uv run python benchmarks/upgrade_with_rows.py --legacy-timezone Europe/Berlin
"""

import argparse
import datetime as dt
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from mlops_db.migration.commands import downgrade, upgrade
from mlops_db.schema.revisions import BASELINE, alembic_ini
from mlops_db.settings import Settings
from throwaway_server import connect, parser, print_table, recreate_database, throwaway_server, version

BAR_S = 1.0
FROM = BASELINE
BEFORE_REWRITE = "0015"
REWRITE = "0016"
KEY_OF_OLD_ROWS = "0017"
REWRITE_WITH_TIMEZONE = "0007"
MONTHS = 24
DECISIONS = 1_000
# By the clock of the old columns, which is UTC.
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
COPY = "CREATE TABLE copy AS SELECT * FROM monitoring_metrics"
KEY = """
CREATE UNIQUE INDEX once_more ON mlops_internal.monitoring_metrics_legacy
    (model_name, metric_type, metric_name, timestamp, id)
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
    "EXPLAIN SELECT * FROM v_recent_monitoring",  # takes the locks of a reader, and not his time
)


@dataclass
class Client:
    """Somebody who goes on with statements while the upgrade runs.

    Attributes:
        statements: what it runs, in turn, each in a transaction of its own.
        waits: when each one began and ended.
        errors: what the server answered instead.
    """

    statements: tuple[str, ...]
    waits: list[tuple[dt.datetime, dt.datetime]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, settings: Settings) -> Iterator[None]:
        """Run them over and over, until the block ends."""
        stopped = threading.Event()

        def run() -> None:
            with connect(settings) as connection:
                while not stopped.wait(0.005):
                    for statement in self.statements:
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
        """The longest statement that ran in a revision, in seconds, and not longer in another one."""
        within = [0.0]
        for began, ended in self.waits:
            overlap = (min(ended, finished) - max(began, started)).total_seconds()
            if overlap > 0 and overlap >= (ended - began).total_seconds() / 2:
                within.append((ended - began).total_seconds())
        return max(within)


@dataclass(frozen=True)
class Revision:
    """A revision and the moments in which it began and was committed."""

    name: str
    started: dt.datetime
    finished: dt.datetime


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    options = _options()
    with throwaway_server(options.programs) as server:
        settings = replace(server, database="upgrade")
        recreate_database(settings)
        upgrade(settings, FROM)
        with connect(settings) as connection:
            connection.execute(FILL.format(rows=options.rows, months=MONTHS, decisions=DECISIONS))
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")
            started = time.perf_counter()
            connection.execute(COPY)
            copied = time.perf_counter() - started
            connection.execute("DROP TABLE copy")
            connection.execute("CHECKPOINT")
        arguments = [f"-xlegacy-timezone={options.legacy_timezone}"] if options.legacy_timezone else []
        writer, reader = Client(WRITES), Client(READS)
        with writer.running(settings), reader.running(settings):
            output = _upgrade(settings, arguments)
        revisions = _history(settings)
        with connect(settings) as connection:
            started = time.perf_counter()
            connection.execute(KEY)
            key = time.perf_counter() - started
            connection.execute("DROP INDEX mlops_internal.once_more")
        started = time.perf_counter()
        downgrade(settings, BEFORE_REWRITE)
        back = time.perf_counter() - started
        print(f"{version(server)}; {options.rows:,} metrics, {FROM} to head {' '.join(arguments)}")
    print(f"to compare: {COPY} at {FROM}, nobody beside it: {copied:.2f} s")
    print(f"to compare: the key of {KEY_OF_OLD_ROWS} alone, nobody beside it: {key:.2f} s")
    print(f"from head to {BEFORE_REWRITE} again, nobody beside it: {back:.2f} s\n")
    return _report(revisions, writer, reader, options, output)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="how many metrics (default 1 million)")
    options.add_argument("--legacy-timezone", help="the zone for `-x legacy-timezone`; default: none, UTC")
    return options.parse_args()


def _upgrade(settings: Settings, arguments: list[str]) -> str:
    """Run `alembic upgrade head` as a process of its own; returns what it says."""
    command = [str(Path(sys.executable).parent / "alembic"), "-c", str(alembic_ini()), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_"))}
    environment = kept | {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": "",
        "MLOPS_DB_NAME": settings.database,
    }
    done = subprocess.run([*command, "upgrade", "head"], env=environment, capture_output=True, check=False, text=True)
    if done.returncode:
        sys.exit(f"the upgrade failed:\n{done.stdout}{done.stderr}")
    return done.stderr


def _history(settings: Settings) -> list[Revision]:
    with connect(settings) as connection:
        found = connection.execute(
            """
            SELECT revision, min(started_at), max(finished_at) FROM mlops_internal.migration_history
             WHERE revision > %s GROUP BY revision ORDER BY revision
            """,
            [FROM],
        )
        return [Revision(*row) for row in found]


def _report(revisions: list[Revision], writer: Client, reader: Client, options: argparse.Namespace, output: str) -> int:
    rewriting = {REWRITE, REWRITE_WITH_TIMEZONE} if options.legacy_timezone else {REWRITE}
    million = options.rows / 1_000_000
    table, above = [], []
    for revision in revisions:
        seconds = (revision.finished - revision.started).total_seconds()
        waits = [client.longest(revision.started, revision.finished) for client in (writer, reader)]
        per_million = max(waits) / million if revision.name in rewriting else None
        table.append(
            [
                revision.name,
                *(f"{value:.2f}" for value in (seconds, *waits)),
                f"{per_million:.2f}" if per_million else "",
            ]
        )
        if max(waits) > BAR_S and revision.name not in rewriting:
            above.append(revision.name)
    total = (revisions[-1].finished - revisions[0].started).total_seconds()
    longest = (max((end - begin).total_seconds() for begin, end in client.waits) for client in (writer, reader))
    table.append(["all", f"{total:.2f}", *(f"{value:.2f}" for value in longest), ""])
    print_table(("revision", "s", "longest write s", "longest read s", "s per million rows"), table)
    for client, name in ((writer, "writer"), (reader, "reader")):
        print(f"{name}: {len(client.waits):,} statements, {len(client.errors)} errors", *sorted(set(client.errors)))
    tries = sum("again" in line for line in output.splitlines())
    print(f"revisions tried once more, for want of a lock: {tries}")
    print(f"\nbar: nobody waits over {BAR_S:g} s, but for {' and '.join(sorted(rewriting))}: ", end="")
    print(f"MISSED by {', '.join(above)}" if above else "holds")
    return 1 if above else 0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


if __name__ == "__main__":
    sys.exit(main())
