"""What does Citus cost and bring, with one worker and with two, against one plain PostgreSQL?

Three clusters at head on this machine, each with the same rows: 200 models with 100 series each, over 90 days. All
cases run in turn, plain PostgreSQL first. By the clock, a ratio is the median of the rounds' ratios to it; on a busy
machine it may contradict the medians beside it. Processor time is that of all processes of all nodes, as a mean, so it
can be compared although the nodes share the cores of this machine. There are no bars: the script answers a question,
see docs/scaling.md.

    uv run python benchmarks/citus.py --pg-ctl /usr/lib/postgresql/18/bin/pg_ctl
    uv run python benchmarks/citus.py --pg-ctl /usr/lib/postgresql/18/bin/pg_ctl --rows 200000 --rounds 3
"""

import argparse
import datetime as dt
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import psycopg

from metric_rows import COPY, MICROSECOND, fill, partitions
from mlops_db.admin.cluster.distribute import distribute
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from throwaway_server import CONFIGURATION, connect, print_table, recreate_database, version

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.citus import citus_cluster
from support.cluster import postmaster_of, settings_of, throwaway_cluster

DATABASE = "bench_citus"
MODELS, SERIES_OF_A_MODEL = 200, 100
SERIES = MODELS * SERIES_OF_A_MODEL
TYPES = ("coverage", "drift", "performance")
COLUMNS = f"""
    'model_' || mod(i, {MODELS}) AS model_name,
    (ARRAY['coverage', 'drift', 'performance'])[1 + mod(mod(i / {MODELS}, {SERIES_OF_A_MODEL}), 3)] AS metric_type,
    'metric_' || mod(i / {MODELS}, {SERIES_OF_A_MODEL}) AS metric_name,
    sin(i) AS metric_value, NULL::jsonb AS metadata
"""
DAYS, MONTHS = 90, 5
SETTLE_S = 0.3  # until a postmaster has the time of sessions that have just ended
WRITERS, BATCH, MANY, RERUN, SINGLE = 4, 25_000, 50_000, 40, 100
COPIED, BY_THE_COORDINATOR = f"COPY by {WRITERS} writers, a row", "of it the coordinator, a row"
MODEL, KIND, NAME = "model_7", "coverage", "metric_0"
BY_SERIES = """
SELECT model_name, metric_type, metric_name, count(*), avg(metric_value), max(metric_value)
  FROM monitoring_metrics WHERE timestamp >= now() - interval '90 days' GROUP BY 1, 2, 3
"""


@dataclass
class Layout:
    """A server or a cluster of them: the settings of its database, and the folders of its nodes."""

    name: str
    settings: Settings
    nodes: Sequence[Path]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)
    bytes_a_row: float = 0

    def time(self, case: str, run: Callable[[], object], *, per: int = 1) -> None:
        """Run a case once, and keep its seconds and the nodes' processor seconds, divided by `per`."""
        used, started = [_used(node) for node in self.nodes], time.perf_counter()
        run()
        self.seconds.setdefault(case, []).append((time.perf_counter() - started) / per)
        time.sleep(SETTLE_S)
        spent = [_used(node) - before for node, before in zip(self.nodes, used, strict=True)]
        self.processor.setdefault(case, []).append(sum(spent) / per)
        if case == COPIED:
            self.processor.setdefault(BY_THE_COORDINATOR, []).append(spent[0] / per)


def _used(node: Path) -> float:
    """Processor seconds of a server so far; its postmaster has those of its children that have ended."""
    postmaster = psutil.Process(postmaster_of(node))
    ended = postmaster.cpu_times()
    used = ended.children_user + ended.children_system
    for process in (postmaster, *postmaster.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used += process.cpu_times().user + process.cpu_times().system
    return used


def main() -> int:
    """Measure and print."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with _layouts(options.pg_ctl.parent) as layouts:
        with connect(layouts[-1].settings) as connection:
            (citus,) = (
                connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'citus'").fetchone() or ()
            )
        print(f"{version(layouts[0].settings)}, Citus {citus}; {options.rows:,} rows, {SERIES:,} series\n")
        for layout in layouts:
            _prepare(layout)
        _ingest(layouts, options.rows)
        for layout in layouts:
            _weigh(layout, options.rows)
        for round_ in range(1 + options.rounds):
            for layout in layouts:
                _ask(layout, round_)
            if round_ == 0:  # not counted: everything is cold
                for layout in layouts:
                    layout.seconds = {COPIED: layout.seconds[COPIED]}
                    layout.processor = {case: layout.processor[case] for case in (COPIED, BY_THE_COORDINATOR)}
    _print(layouts)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pg-ctl", type=Path, required=True, help="pg_ctl of a PostgreSQL that has Citus")
    parser.add_argument("--rows", type=int, default=2_000_000, help="how many metrics (default 2 million)")
    parser.add_argument("--rounds", type=int, default=9, help="how often each case runs (default 9)")
    return parser.parse_args()


@contextmanager
def _layouts(programs: Path) -> Iterator[list[Layout]]:
    """Run the three clusters during the block."""
    with ExitStack() as running:
        plain = running.enter_context(throwaway_cluster(programs, in_memory=False, **CONFIGURATION))
        settings = replace(settings_of(plain), database=DATABASE)
        recreate_database(settings)
        layouts = [Layout("plain", settings, [plain])]
        for workers in (1, 2):
            cluster = running.enter_context(citus_cluster(programs, workers=workers, in_memory=False, **CONFIGURATION))
            database = running.enter_context(cluster.database(DATABASE))
            nodes = [cluster.coordinator, *cluster.workers]
            layouts.append(Layout(f"{workers} worker{'s' * (workers > 1)}", database.settings, nodes))
        yield layouts


def _prepare(layout: Layout) -> None:
    """Bring a database to head, with a row of each series and a month for each of the rows that come."""
    upgrade(layout.settings)
    with connect(layout.settings) as connection:
        fill(connection, rows=SERIES, months=MONTHS, series=SERIES, columns=COLUMNS)
    if len(layout.nodes) > 1:
        distribute(layout.settings)


def _ingest(layouts: Sequence[Layout], rows: int) -> None:
    """Load the rows in the order of time, in COPYs of one batch, by several writers; the layouts take turns."""
    start = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=DAYS)
    step = dt.timedelta(days=DAYS) / rows
    block = WRITERS * BATCH
    for first in range(0, rows, block):
        texts = [
            _text(range(at, min(at + BATCH, rows)), start, step) for at in range(first, min(first + block, rows), BATCH)
        ]
        for layout in layouts:
            layout.time(
                COPIED,
                lambda layout=layout, texts=texts: _copy(layout.settings, texts),
                per=sum(text.count(b"\n") for text in texts),
            )


def _series(i: int) -> tuple[str, str, str]:
    """Model, type and name of a row; the type follows from the name, as in COLUMNS."""
    number = i // MODELS % SERIES_OF_A_MODEL
    return f"model_{i % MODELS}", TYPES[number % len(TYPES)], f"metric_{number}"


def _text(rows: range, start: dt.datetime, step: dt.timedelta) -> bytes:
    lines = ("\t".join((*_series(i), f"{start + i * step}", "0.5", r"\N")) for i in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def _copy(settings: Settings, texts: Sequence[bytes]) -> None:
    def run(text: bytes) -> None:
        with connect(settings) as connection, connection.cursor() as cursor:
            with cursor.copy(COPY.format("monitoring_metrics")) as copy:
                copy.write(text)
            written.append(True)

    written: list[bool] = []
    threads = [Thread(target=run, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == len(texts), "a COPY failed"


def _weigh(layout: Layout, rows: int) -> None:
    """Vacuum, and take the size of the metrics with their indexes."""
    with connect(layout.settings) as connection:
        size = 0
        for name in partitions(connection):
            connection.execute(f"VACUUM (ANALYZE) {name}")
            function = "pg_total_relation_size" if layout.name == "plain" else "citus_total_relation_size"
            size += _value(connection, f"SELECT {function}('{name}')")
        connection.execute("VACUUM (ANALYZE) mlops_internal.metric_series")
        count = _value(connection, "SELECT count(*) FROM monitoring_metrics")
    assert count == rows + SERIES, f"{layout.name}: {count} rows"
    layout.bytes_a_row = size / count


def _ask(layout: Layout, round_: int) -> None:
    """Run each case once."""
    moment = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)
    names = ("model_name", "metric_type", "metric_name")
    rows = [
        {**dict(zip(names, _series(i), strict=True)), "metric_value": 0.5, "timestamp": moment + i * MICROSECOND}
        for i in range(MANY)
    ]
    about = moment - dt.timedelta(hours=1)
    rerun = [
        {
            "model_name": MODEL,
            "metric_type": KIND,
            "metric_name": f"replaced_{i}",
            "metric_value": 1,
            "timestamp": about,
        }
        for i in range(RERUN)
    ]
    with DatabaseManager(layout.settings) as db, connect(layout.settings) as connection:
        monitoring = db.monitoring
        monitoring.log_many(rerun, replace=about)
        layout.time("log_many, a row", lambda: monitoring.log_many(rows), per=MANY)
        layout.time(
            f"log_many(replace=), {RERUN} rows of a model",
            lambda: monitoring.log_many(rerun, replace=about),
        )

        def log_singly() -> None:
            for i in range(SINGLE):
                monitoring.log(KIND, NAME, float(i), model_name=MODEL)

        layout.time("log, one row", log_singly, per=SINGLE)
        reads: dict[str, Callable[[], object]] = {
            f"v_recent_monitoring, {SERIES:,} series": lambda: _all(connection, "SELECT * FROM v_recent_monitoring"),
            "v_recent_monitoring of one model": lambda: _all(
                connection, "SELECT * FROM v_recent_monitoring WHERE model_name = %s", [MODEL]
            ),
            "monitoring.latest(model)": lambda: monitoring.latest(MODEL),
            "90 days by series": lambda: _all(connection, BY_SERIES),
            "history of one series": lambda: list(monitoring.history(KIND, NAME, model_name=MODEL)),
        }
        for case, read in reads.items():
            assert read()
            layout.time(case, read)
        months_ahead = 4 + round_
        made = f"SELECT mlops_internal.create_next_partition({months_ahead})"
        layout.time("make a month", lambda: _all(connection, made))


def _all(connection: psycopg.Connection[Any], query: str, parameters: Sequence[object] = ()) -> list[Any]:
    return connection.execute(query, parameters).fetchall()


def _value(connection: psycopg.Connection[Any], query: str) -> int:
    (value,) = connection.execute(query).fetchone() or (0,)
    return int(value)


def _print(layouts: Sequence[Layout]) -> None:
    names = [layout.name for layout in layouts]
    print("By the clock, in milliseconds (a row: microseconds); medians:\n")
    rows = []
    for case, plain in layouts[0].seconds.items():
        cells = [_number(case, statistics.median(plain))]
        for layout in layouts[1:]:
            seconds = layout.seconds[case]
            ratio = statistics.median(mine / theirs for mine, theirs in zip(seconds, plain, strict=True))
            cells += [_number(case, statistics.median(seconds)), f"{ratio:.2f}"]
        rows.append([case, *cells])
    print_table(_head(names), rows)
    print("\nProcessor time of all nodes, in milliseconds (a row: microseconds); means:\n")
    rows = []
    for case, plain in layouts[0].processor.items():
        cells = [_number(case, statistics.fmean(plain))]
        for layout in layouts[1:]:
            mean = statistics.fmean(layout.processor[case])
            cells += [_number(case, mean), f"{mean / statistics.fmean(plain):.2f}" if any(plain) else ""]
        rows.append([case, *cells])
    sizes = [layout.bytes_a_row for layout in layouts]
    cells = [cell for size in sizes[1:] for cell in (f"{size:,.0f}", f"{size / sizes[0]:.2f}")]
    print_table(_head(names), [*rows, ["bytes a row, with the index", f"{sizes[0]:,.0f}", *cells]])


def _head(names: Sequence[str]) -> list[str]:
    return ["", names[0], *(cell for name in names[1:] for cell in (name, "ratio"))]


def _number(case: str, seconds: float) -> str:
    return f"{(1e6 if case.endswith('a row') else 1e3) * seconds:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
