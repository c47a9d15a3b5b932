"""How long do the reporting views, the commands that read them, and Grafana's panels take?

2 million metrics of 230 series in 13 months, and 1,000 versions of 10 models with their decisions; then 2 million
metrics of 1,012 series (reported_rows.py). As a role with the grants of `mlops-db grant-reader`, warm: queries with
their planning, without parallel workers; commands as processes, from start to end.

Each is timed by the clock, and by the processor time of client and server together, which Linux's /proc tells: other
work on the machine does not add to it. Exit code 0 if no query of Grafana takes more than a second of that, and no
report more than ten.

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
from statistics import median
from typing import Any, NamedTuple

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


class Took(NamedTuple):
    """How long something took, in seconds.

    Attributes:
        clock: by the clock.
        processor: of the processor, for client and server together.
    """

    clock: float
    processor: float


def main() -> int:
    """Measure and print; 0 if the bars hold."""
    options = _options()
    with throwaway_server(options.programs) as server, tempfile.TemporaryDirectory() as folder:
        few, series = _database(server, "few", options.rows, FEW_MODELS)
        print(f"{version(server)}; {options.rows:,} metrics in {MONTHS} months, {VERSIONS:,} versions; warm")
        print(f"{options.rounds} rounds in turn, of commands a third of that\n")
        with connect(few) as reader:
            reader.execute("SET max_parallel_workers_per_gather = 0")
            _print("query", _time({name: _query(reader, sql) for name, sql in QUERIES.items()}, options.rounds))
            panels = _time({name: _query(reader, sql) for name, sql in _panels(reader)}, options.rounds)
            _print("Grafana, 90 days, everything chosen", panels)
        page = Path(folder) / "report.html"
        rounds = options.rounds // 3
        health = ("health", "--fail-on", "missing")
        report = ("report", "--out", str(page))
        commands = {
            "`mlops-db health`": _command(few, *health),
            "`mlops-db health`, one model": _command(few, *health, "--model", "model_3"),
            f"`mlops-db report`, {series} series": _command(few, *report),
        }
        times = _time(commands, rounds)
        with connect(replace(server, database=few.database)) as owner:
            owner.execute(ALL_HIGH)
        times |= _time({"`mlops-db health`, all series high for a year": _command(few, *health)}, rounds)
        many, series = _database(server, "many", options.rows, MANY_MODELS)
        times |= _time({f"`mlops-db health`, {series:,} series": _command(many, *health)}, rounds)
        times |= _time({f"`mlops-db report`, {series:,} series": _command(many, *report)}, rounds)
        _print("command", times)
        megabytes = page.stat().st_size / 1e6
    slowest = max(_processor(seconds) for seconds in panels.values())
    reports = max(_processor(seconds) for name, seconds in times.items() if "report" in name)
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


def _query(connection: psycopg.Connection[Any], sql: str) -> Callable[[], Took]:
    schedule = Path(f"/proc/{connection.info.backend_pid}/schedstat")

    def used() -> float:
        """The processor time of the server's process and of this one."""
        return int(schedule.read_text().split()[0]) / 1e9 + time.process_time()

    def run() -> Took:
        started, before = time.perf_counter(), used()
        connection.execute(sql.encode()).fetchall()
        return Took(time.perf_counter() - started, used() - before)

    return run


def _command(settings: Settings, *arguments: str) -> Callable[[], Took]:
    """Run `mlops-db` as a process that connects to these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_", "PG"))}
    where = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_USER": settings.user,
        "MLOPS_DB_NAME": settings.database,
    }
    script = Path(sys.executable).parent / "mlops-db"

    def run() -> Took:
        with connect(settings) as watching:
            before = _used_by_ended_sessions(watching)
            started = time.perf_counter()
            process = subprocess.Popen(
                [script, *arguments], env=kept | where, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _, status, client = os.wait4(process.pid, 0)
            clock = time.perf_counter() - started
            assert status == 0, arguments
            while watching.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = CURRENT_USER").fetchone() != (
                1,
            ):
                time.sleep(0.05)
            time.sleep(0.1)  # until the server has counted the process
            server = _used_by_ended_sessions(watching) - before
        return Took(clock, client.ru_utime + client.ru_stime + server)

    return run


def _used_by_ended_sessions(connection: psycopg.Connection[Any]) -> float:
    """The processor time of all processes of the server that have ended, in seconds."""
    session = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    server = Path(f"/proc/{session[1]}/stat").read_text().rpartition(")")[2].split()
    return (int(server[13]) + int(server[14])) / os.sysconf("SC_CLK_TCK")


def _time(cases: dict[str, Callable[[], Took]], rounds: int) -> dict[str, list[Took]]:
    """Time each in turn, after one round that is not counted."""
    times: dict[str, list[Took]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, run in cases.items():
            took = run()
            if turn:
                times[name].append(took)
    return times


def _processor(times: list[Took]) -> float:
    return median(took.processor for took in times)


def _print(what: str, times: dict[str, list[Took]]) -> None:
    rows = (
        [name, *spread([took.clock for took in all_of_it]), f"{1000 * _processor(all_of_it):,.1f}"]
        for name, all_of_it in times.items()
    )
    print_table((what, "median ms", "min", "max", "processor"), rows)
    print()


if __name__ == "__main__":
    sys.exit(main())
