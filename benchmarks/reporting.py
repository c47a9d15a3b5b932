"""How long do the reporting views, the commands that read them, and Grafana's panels take?

2 million metrics of 230 series in 13 months, and 1,000 versions of 10 models with their decisions; then 2 million
metrics of 1,012 series (reported_rows.py). As a role with the grants of `mlops-db grant-reader`, warm: queries with
their planning, and commands as processes, from start to end. Exit code 0 if no query of Grafana takes longer than a
second, and no report longer than ten.

    uv run python benchmarks/reporting.py
    uv run python benchmarks/reporting.py --rows 200000 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg

from mlops_db.admin.roles import grant_reader
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from reported_rows import MONTHS, fill_reported
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

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.grafana import Choice, dashboards, expand, statements

READER = "dashboards"
FEW_MODELS, MANY_MODELS, VERSIONS = 10, 44, 1_000
PANEL_BAR_S, REPORT_BAR_S, REPORT_BAR_MB = 1, 10, 5
ONE_SERIES = "model_name = 'model_3' AND metric_type = 'drift' AND metric_name = 'drift_score.feature_3'"
HISTORY = f"""
    SELECT timestamp, metric_value, lower_threshold, upper_threshold, state FROM reporting.metric_history
     WHERE {ONE_SERIES} AND timestamp < now() AND timestamp >=
"""
DAILY = "SELECT * FROM reporting.metric_daily(now() - interval '90 days', now())"
# What metric_daily does, without the end of the time.
WITHOUT_END = """
    SELECT (timestamp AT TIME ZONE 'UTC')::date, model_name, metric_type, metric_name, min(metric_value),
           avg(metric_value), max(metric_value), count(metric_value), count(*) - count(metric_value)
      FROM reporting.metric_history WHERE timestamp >= now() - interval '90 days'
     GROUP BY 1, 2, 3, 4
"""
QUERIES = {
    "`v_recent_monitoring`": "SELECT * FROM v_recent_monitoring",
    "`metric_history`, one series, 30 days": f"{HISTORY} now() - interval '30 days'",
    "`metric_history`, one series, a year": f"{HISTORY} now() - interval '365 days'",
    "`metric_daily`, one series, 90 days": f"{DAILY} WHERE {ONE_SERIES}",
    "`metric_daily`, all series, 90 days": DAILY,
    "the same by `metric_history`, without an end": WITHOUT_END,
    "`production_periods`, one model": "SELECT * FROM reporting.production_periods WHERE model_name = 'model_3'",
    "`production_periods`, all models": "SELECT * FROM reporting.production_periods",
    "`decision_gates`, one model": "SELECT * FROM reporting.decision_gates WHERE model_name = 'model_3'",
    "`decision_gates`, all models": "SELECT * FROM reporting.decision_gates",
}
ALL_HIGH = "UPDATE mlops_internal.metric_series SET lower_threshold = NULL, upper_threshold = -1"


def main() -> int:
    """Measure and print; 0 if the bars hold."""
    options = _options()
    with throwaway_server(options.programs) as server, tempfile.TemporaryDirectory() as folder:
        few, series = _database(server, "few", options.rows, FEW_MODELS)
        print(
            f"{version(server)}; {options.rows:,} metrics of {series} series in {MONTHS} months, {VERSIONS:,} versions"
        )
        print(f"{options.rounds} rounds in turn, warm\n")
        page = Path(folder) / "report.html"
        with connect(few) as reader:
            queries = {name: _query(reader, sql) for name, sql in QUERIES.items()}
            _print("query", times := _time(queries, options.rounds))
            panels = {name: _query(reader, sql) for name, sql in _panels(reader)}
            _print("Grafana, 90 days, everything chosen", times := _time(panels, options.rounds))
            slowest = max(max(seconds) for seconds in times.values())
        commands = {
            "`mlops-db health`": _command(few, "health", "--fail-on", "missing"),
            "`mlops-db health --model model_3`": _command(few, "health", "--model", "model_3", "--fail-on", "missing"),
            "`mlops-db report`, 90 days": _command(few, "report", "--out", str(page)),
        }
        times = _time(commands, options.rounds // 3)
        sizes = [f"{series} series: {page.stat().st_size / 1e6:.1f} MB"]
        with connect(replace(server, database=few.database)) as owner:
            owner.execute(ALL_HIGH)
        name = "`mlops-db health`, each series high for more than 1,000 rows"
        times |= _time({name: _command(few, "health", "--fail-on", "missing")}, options.rounds // 3)
        many, series = _database(server, "many", options.rows, MANY_MODELS)
        name = f"`mlops-db report`, {series:,} series, 90 days"
        times |= _time({name: _command(many, "report", "--out", str(page))}, options.rounds // 3)
        sizes.append(f"{series:,} series: {page.stat().st_size / 1e6:.1f} MB")
        megabytes = page.stat().st_size / 1e6
        _print("command", times)
    print(f"the report: {', '.join(sizes)}\n")
    reports = max(max(seconds) for name, seconds in times.items() if "report" in name)
    held = (
        print_bar("seconds of Grafana's slowest query", slowest, PANEL_BAR_S),
        print_bar("seconds of the slowest report", reports, REPORT_BAR_S),
        print_bar(f"megabytes of the report of {series:,} series", megabytes, REPORT_BAR_MB),
    )
    return 0 if all(held) else 1


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=2_000_000, help="how many metrics (default 2 million)")
    options.add_argument("--rounds", type=int, default=15, help="how often each query runs (default 15)")
    return options.parse_args()


def _database(server: Settings, name: str, rows: int, models: int) -> tuple[Settings, int]:
    """A filled database, as the reader sees it, and the number of its series."""
    owner = replace(server, database=name)
    recreate_database(owner)
    upgrade(owner)
    with connect(owner) as connection:
        series = fill_reported(connection, rows=rows, models=models, versions=VERSIONS)
        connection.execute(f"DO $$ BEGIN CREATE ROLE {READER} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    grant_reader(owner, READER)
    return replace(owner, user=READER), series


def _panels(reader: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    """Each statement of Grafana's dashboards and alert rules, over 90 days, with everything chosen that can be.

    Panels that Grafana repeats for each metric show one.
    """
    until = datetime.now(timezone.utc)
    everything = _choose_all(reader, Choice(until=until, since=until - timedelta(days=90)))
    metric = everything.variables["metric"][0]
    one = replace(everything, variables={**everything.variables, "metric": [metric]})
    for of_all, of_one in zip(statements(everything), statements(one), strict=True):
        repeated = "${metric}" in of_all.place
        yield f"{of_all.dashboard}: {of_all.place}", of_one.sql if repeated else of_all.sql


def _choose_all(reader: psycopg.Connection[Any], choice: Choice) -> Choice:
    """Choose every value of the variables that take several, and the first one of the others."""
    for dashboard in dashboards().values():
        for variable in dashboard["templating"]["list"]:
            values = [value for (value,) in reader.execute(expand(variable["query"], choice).encode())]
            chosen = values if variable["multi"] else values[0]
            choice = replace(choice, variables={**choice.variables, variable["name"]: chosen})
    return choice


def _query(connection: psycopg.Connection[Any], sql: str) -> Callable[[], None]:
    def run() -> None:
        connection.execute(sql.encode()).fetchall()

    return run


def _command(settings: Settings, *arguments: str) -> Callable[[], None]:
    """Run `mlops-db` as a process that connects to these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_", "PG"))}
    where = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_USER": settings.user,
        "MLOPS_DB_NAME": settings.database,
    }

    def run() -> None:
        script = Path(sys.executable).parent / "mlops-db"
        subprocess.run([script, *arguments], env=kept | where, capture_output=True, check=True)

    return run


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


def _print(what: str, times: dict[str, list[float]]) -> None:
    print_table((what, "median ms", "min", "max"), ([name, *spread(seconds)] for name, seconds in times.items()))
    print()


if __name__ == "__main__":
    sys.exit(main())
