"""How long does v_recent_monitoring take for 300 series, as the number of rows and partitions grows?

The view finds the newest row of each series of the catalogue by the primary key; the simple way is DISTINCT ON over all
rows. Queries on warm databases, in turn in one run, with the time for planning. The bars for the view use the median of
the rounds' ratios. Exit code 0 if the bars of this table hold.

    uv run python benchmarks/recent_monitoring.py
    uv run python benchmarks/recent_monitoring.py --rows 1000000 --programs /usr/lib/postgresql/15/bin
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import psycopg

from metric_rows import SERIES, fill, partitions
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

FEW = 100_000
MONTHS, MANY_MONTHS = 24, 120
SILENT_MONTHS = 100
VIEW = "SELECT * FROM v_recent_monitoring"
DISTINCT_ON = """
SELECT DISTINCT ON (model_name, metric_type, metric_name) * FROM monitoring_metrics
 ORDER BY model_name, metric_type, metric_name, timestamp DESC, id DESC
"""
ONE = f"{VIEW} WHERE model_name = 'model_0' AND metric_type = 'drift' AND metric_name = %s"
WITH_DEFAULT = """
ALTER TABLE monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_earlier;
ALTER TABLE monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_later;
CREATE TABLE mlops_internal.monitoring_metrics_default PARTITION OF monitoring_metrics DEFAULT
"""


def main() -> int:
    """Measure and print; 0 if the bars hold."""
    options = _options()
    with throwaway_server(options.programs) as server:
        print(f"{version(server)}; {options.rows:,} rows, {SERIES} series, {options.rounds} rounds in turn, warm\n")
        few, many, long = (
            _database(server, name, rows, months)
            for name, rows, months in (
                ("few", FEW, MONTHS),
                ("many", options.rows, MONTHS),
                ("long", options.rows, MANY_MONTHS),
            )
        )
        few_name, many_name, long_name = (
            f"view, {FEW:,} rows, {MONTHS} months",
            f"view, {options.rows:,} rows, {MONTHS} months",
            f"view, {options.rows:,} rows, {MANY_MONTHS} months",
        )
        times = _time({few_name: _all(few), many_name: _all(many), long_name: _all(long)}, options.rounds)
        times |= _time({f"DISTINCT ON{many_name[4:]}": _all(many, DISTINCT_ON)}, 2)
        _silence(long)
        live, silent = "view, one series, newest row this month", f"view, one series, silent for {SILENT_MONTHS} months"
        times |= _time({live: _one(long, "metric_0"), silent: _one(long, "silent")}, options.rounds)
        many.execute(WITH_DEFAULT)
        with_default = f"{many_name}, DEFAULT partition"
        times |= _time({with_default: _all(many)}, options.rounds)
    medians = {name: median(seconds) for name, seconds in times.items()}
    print_table(
        ("query", "median ms", "min", "max", "ratio"),
        ([name, *spread(seconds), f"{medians[name] / medians[many_name]:.2f}"] for name, seconds in times.items()),
    )
    distinct_on = next(name for name in times if name.startswith("DISTINCT"))
    print(f"ratio: against `{many_name}`\n")
    held = (
        print_bar(f"{options.rows:,} rows against {FEW:,}", _ratio(times[many_name], times[few_name]), 2),
        print_bar("DISTINCT ON against the view", medians[distinct_on] / medians[many_name], 200, at_least=True),
        print_bar(f"{MANY_MONTHS} months against {MONTHS}", _ratio(times[long_name], times[many_name]), 2),
    )
    return 0 if all(held) else 1


def _options() -> Any:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=10_000_000, help="how many metrics (default 10 million)")
    options.add_argument("--rounds", type=int, default=40, help="how often each query runs (default 40)")
    return options.parse_args()


def _database(server: Settings, name: str, rows: int, months: int) -> psycopg.Connection[Any]:
    settings = replace(server, database=name)
    recreate_database(settings)
    upgrade(settings)
    connection = connect(settings)
    fill(connection, rows=rows, months=months)
    return connection


def _silence(connection: psycopg.Connection[Any]) -> None:
    """Add a series whose newest row is that many months old."""
    oldest = partitions(connection)[1 : 1 + MANY_MONTHS - SILENT_MONTHS]
    connection.execute(
        f"""
        INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)
        SELECT max(timestamp), 'model_0', 'drift', 'silent', 1 FROM {oldest[-1]}
        """
    )


def _all(connection: psycopg.Connection[Any], query: str = VIEW) -> Callable[[], None]:
    def run() -> None:
        answered = len(connection.execute(query).fetchall())
        assert answered == SERIES, answered

    return run


def _one(connection: psycopg.Connection[Any], metric_name: str) -> Callable[[], None]:
    def run() -> None:
        (row,) = connection.execute(ONE, [metric_name]).fetchall()
        assert row[0] is not None, row

    return run


def _ratio(times: list[float], reference: list[float]) -> float:
    return median(seconds / other for seconds, other in zip(times, reference, strict=True))


def _time(cases: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Time each in turn, in seconds, after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, run in cases.items():
            started = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    sys.exit(main())
