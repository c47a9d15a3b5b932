"""How long does `SELECT * FROM v_decision_history LIMIT 10` take as the number of decisions grows?

Queries on warm databases, in turn in one run, with the time for planning. Exit code 0 if the bar holds.

    uv run python benchmarks/decision_history.py
    uv run python benchmarks/decision_history.py --decisions 100000 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import sys
import time
from dataclasses import replace
from statistics import median
from typing import Any

import psycopg

from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from throwaway_server import (
    connect,
    parser,
    print_bar,
    print_table,
    recreate_database,
    spread,
    throwaway_server,
    version,
)

FEW = 1_000
VERSIONS = 1_000
BAR = 2
QUERY = "SELECT * FROM v_decision_history LIMIT 10"
INDEX = "retraining_decisions_decision_timestamp_id_idx"
FILL_VERSIONS = """
INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score, brier_score)
SELECT 'run_' || i, i, 'archived', 0.9, 0.1 FROM generate_series(1, %s) AS i
"""
# Half of the candidates are registered; one decision every ten minutes.
FILL_DECISIONS = """
INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, gate_results, reasoning)
SELECT now() - (%(decisions)s - i) * interval '10 minutes', 'reject', 'run_' || mod(i, 2 * %(versions)s),
       '{"sufficient_samples": {"passed": true, "value": 5000, "threshold": 1000},
         "minimum_coverage": {"passed": true, "value": 0.97, "threshold": 0.9},
         "promotion_cooldown": true,
         "metric_improvement": {"passed": false, "value": 0.001, "threshold": 0.005}}',
       'f1_score is not better by enough'
  FROM generate_series(1, %(decisions)s) AS i
"""


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    options = _options()
    with throwaway_server(options.programs) as server:
        print(f"{version(server)}; {options.rounds} rounds in turn, warm\n")
        databases = {count: _database(server, count) for count in (FEW, options.decisions)}
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(options.rounds):
            for count, connection in databases.items():
                times.setdefault(("by the index", count), []).append(_time(connection))
        for connection in databases.values():
            connection.execute(f"DROP INDEX {INDEX}")
        for _ in range(3):
            for count, connection in databases.items():
                times.setdefault(("without it", count), []).append(_time(connection))
    medians = {case: median(seconds) for case, seconds in times.items()}
    print_table(
        (QUERY, "decisions", "median ms", "min", "max", "ratio"),
        (
            [how, f"{count:,}", *spread(seconds), f"{medians[how, count] / medians['by the index', FEW]:.2f}"]
            for (how, count), seconds in times.items()
        ),
    )
    print()
    ratio = medians["by the index", options.decisions] / medians["by the index", FEW]
    return 0 if print_bar(f"{options.decisions:,} decisions against {FEW:,}", ratio, BAR) else 1


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--decisions", type=int, default=1_000_000, help="how many (default 1 million)")
    options.add_argument("--rounds", type=int, default=50, help="how often each query runs (default 50)")
    return options.parse_args()


def _database(server: Settings, decisions: int) -> psycopg.Connection[Any]:
    settings = replace(server, database=f"decisions_{decisions}")
    recreate_database(settings)
    upgrade(settings)
    connection = connect(settings)
    connection.execute(FILL_VERSIONS, [VERSIONS])
    connection.execute(FILL_DECISIONS, {"decisions": decisions, "versions": VERSIONS})
    connection.execute("VACUUM (ANALYZE)")
    _time(connection)
    return connection


def _time(connection: psycopg.Connection[Any]) -> float:
    started = time.perf_counter()
    connection.execute(QUERY).fetchall()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
