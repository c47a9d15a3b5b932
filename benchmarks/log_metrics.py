"""How fast are metrics logged, compared with psycopg2 alone and with MLflow?

The table is monitoring_metrics at head with its key, checks and trigger, on a temporary server. It is emptied before
each case. The cases run in turn, in changing order, after one round that is not counted. The time includes the commit.

- Many rows: mappings with a timestamp each, one in five with metadata. Raw COPY gets the same rows as text: in one case
  the text exists already, in the other a loop without checks creates it from the mappings.
- One row: log() with its pool, compared with a bare psycopg2 INSERT and commit on an open connection.
- Memory: a separate process streams a generator.
- MLflow: SqlAlchemyStore.log_batch with the most metrics that a call takes (1,000), into the same server, in turn with
  log_many; rows per second.

Exit code 0 if log_many is at least 0.9 times as fast as COPY of existing text and 20 times as fast as MLflow, log takes
at most 1.3 times as long as the bare INSERT, and streaming stays under 200 MB.

    uv run python benchmarks/log_metrics.py
    uv run python benchmarks/log_metrics.py --stream 10000000 --no-mlflow
"""

import argparse
import io
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its class like a function)

from mlops_db.migration.commands import upgrade
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from throwaway_server import throwaway_server

MANY_BAR, ONE_BAR, MLFLOW_BAR, MEMORY_BAR_MB = 0.9, 1.3, 20, 200
DATABASE, MLFLOW_DATABASE = "mlops_bench_metrics", "mlops_bench_mlflow"
SERIES = 300
MLFLOW_ROWS = 10_000
COPY = (
    "COPY public.monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value, metadata)"
    " FROM STDIN (FORMAT text)"
)
INSERT = (
    "INSERT INTO public.monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value, metadata)"
    " VALUES (%s, %s, %s, %s, %s, %s)"
)

STREAM = """
import sys
from datetime import datetime, timezone
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager

def rows(count):
    for n in range(count):
        yield {"metric_type": "performance", "metric_name": f"metric {n % 300}", "metric_value": n * 0.1,
               "timestamp": datetime.fromtimestamp(1.7e9 + n // 300, timezone.utc), "metadata": {"row": n}}

with DatabaseManager(Settings.from_environment()) as db:
    assert db.monitoring.log_many(rows(int(sys.argv[1]))).written == int(sys.argv[1])
# Not getrusage(): its value survives exec, and would be the parent's.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""

MLFLOW = """
import logging, sys
logging.disable(logging.INFO)
from mlflow.entities import Metric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

store = SqlAlchemyStore(sys.argv[1], sys.argv[2])
experiment = store.create_experiment("metrics")
count = int(sys.argv[3])
metrics = [Metric(f"metric {n % 300}", n * 0.1, 1_700_000_000_000 + n, n // 300) for n in range(count)]
run = store.create_run(experiment, "bench", 0, [], "bench").info.run_id
for _ in sys.stdin:
    for start in range(0, count, 1000):
        store.log_batch(run, metrics[start : start + 1000], [], [])
    print("done", flush=True)
    run = store.create_run(experiment, "bench", 0, [], "bench").info.run_id
"""


def main() -> int:
    """Measure and print; 0 if the bars hold."""
    options = _options()
    with _server(options) as server:
        at_head = replace(server, database=DATABASE)
        _recreate(at_head)
        try:
            upgrade(at_head)
            with DatabaseManager(at_head) as db, closing(connect(at_head)) as connection:
                print(f"{_versions(connection)}\n")
                many = _many(db, connection, options)
                one = _one(db, connection, options)
                mlflow = _beside_mlflow(db, connection, options) if options.mlflow else None
            memory = _stream(at_head, options.stream)
        finally:
            for database in (DATABASE, MLFLOW_DATABASE):
                _drop(replace(server, database=database))
    _print_times("many rows", many, "s")
    _print_times("one row", one, "ms")
    bars = [
        _least("log_many beside COPY of text that is there", _ratio(many, "COPY, the text is there"), MANY_BAR),
        _least("log_many beside COPY of text by a naive loop", _ratio(many, "COPY, text by a naive loop"), MANY_BAR),
        _most("time of log beside INSERT and commit", median(one["log"]) / median(one["INSERT and commit"]), ONE_BAR),
        _most(f"MB of a process that streams {options.stream:,} rows", memory, MEMORY_BAR_MB),
    ]
    if mlflow is not None:
        ours, theirs = options.rows / median(mlflow["log_many"]), MLFLOW_ROWS / median(mlflow["log_batch"])
        bars.append(_least(f"log_many ({ours:,.0f} rows/s) beside MLflow ({theirs:,.0f})", ours / theirs, MLFLOW_BAR))
    return 0 if all(bars) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time log and log_many beside psycopg2 and MLflow.")
    parser.add_argument("--rows", type=int, default=100_000, help="how many rows log_many gets (default 100000)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each case of many rows runs (default 7)")
    parser.add_argument("--single", type=int, default=1_000, help="how often each case of one row runs (default 1000)")
    parser.add_argument("--stream", type=int, default=1_000_000, help="rows of the memory case (default 1000000)")
    parser.add_argument("--no-mlflow", dest="mlflow", action="store_false", help="without MLflow, which uv installs")
    parser.add_argument("--host", help="a server of yours; default: a temporary embedded one")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--user", default="postgres", help="may create databases; its password is PGPASSWORD's")
    return parser.parse_args()


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[Settings]:
    if options.host:
        yield Settings(host=options.host, port=options.port, user=options.user, password=None)
        return
    with throwaway_server(None) as server:
        yield server


def _many(db: DatabaseManager, connection: Connection, options: argparse.Namespace) -> dict[str, list[float]]:
    rows = _rows(options.rows)
    encoded = _naive_text(rows).encode()

    def copy(file: io.BytesIO | io.StringIO) -> None:
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(COPY, file)

    cases: dict[str, Callable[[], object]] = {
        "COPY, the text is there": lambda: copy(io.BytesIO(encoded)),
        "COPY, text by a naive loop": lambda: copy(io.StringIO(_naive_text(rows))),
        "log_many, mappings": lambda: db.monitoring.log_many(rows),
        "log_many, generator": lambda: db.monitoring.log_many(row for row in rows),
        "log_many, replace=": lambda: db.monitoring.log_many(_of_one_moment(rows), replace=rows[0]["timestamp"]),
    }
    try:
        import pandas as pd  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        pass
    else:
        frame = pd.DataFrame(rows)
        cases["log_many, DataFrame"] = lambda: db.monitoring.log_many(frame)
    return _timed(cases, options.rounds, lambda: _empty(connection))


def _one(db: DatabaseManager, connection: Connection, options: argparse.Namespace) -> dict[str, list[float]]:
    row = _rows(1)[0]
    values = (*(row[key] for key in ("timestamp", "model_name", "metric_type", "metric_name", "metric_value")), None)

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(INSERT, values)
        connection.commit()

    def log() -> None:
        db.monitoring.log(
            row["metric_type"], row["metric_name"], row["metric_value"],
            timestamp=row["timestamp"], model_name=row["model_name"],
        )  # fmt: skip

    _empty(connection)
    return _timed({"INSERT and commit": insert, "log": log}, options.single, lambda: None)


def _timed(
    cases: Mapping[str, Callable[[], object]], rounds: int, prepare: Callable[[], None]
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name in random.sample(list(cases), len(cases)):
            prepare()
            started = time.perf_counter()
            cases[name]()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def _rows(count: int) -> list[dict[str, Any]]:
    first = datetime.now(timezone.utc) - timedelta(seconds=count // SERIES)
    rows: list[dict[str, Any]] = []
    for n in range(count):
        row: dict[str, Any] = {
            "timestamp": first + timedelta(seconds=n // SERIES),
            "model_name": "churn",
            "metric_type": "performance",
            "metric_name": f"metric {n % SERIES}",
            "metric_value": n * 0.1,
        }
        if n % 5 == 0:
            row["metadata"] = {"window": "24h", "rows": n}
        rows.append(row)
    return rows


def _of_one_moment(rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return ({**row, "timestamp": None} for row in rows)


def _naive_text(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        metadata = json.dumps(row["metadata"]).replace("\\", "\\\\") if "metadata" in row else "\\N"
        lines.append(
            f"{row['timestamp'].isoformat()}\t{row['model_name']}\t{row['metric_type']}\t{row['metric_name']}"
            f"\t{row['metric_value']!r}\t{metadata}\n"
        )
    return "".join(lines)


def _stream(settings: Settings, count: int) -> float:
    """The peak memory, in MB, of a process that streams rows."""
    with closing(connect(settings)) as connection:
        _empty(connection)
    return float(_output([sys.executable, "-c", STREAM, str(count)], settings))


def _beside_mlflow(db: DatabaseManager, connection: Connection, options: argparse.Namespace) -> dict[str, list[float]]:
    rows = _rows(options.rows)
    settings = replace(db.settings, database=MLFLOW_DATABASE)
    _recreate(settings)
    with _mlflow(settings) as log_batch:
        cases = {"log_many": lambda: db.monitoring.log_many(rows), "log_batch": log_batch}
        return _timed(cases, options.rounds, lambda: _empty(connection))


@contextmanager
def _mlflow(settings: Settings) -> Iterator[Callable[[], object]]:
    """A process with MLflow, in an environment that uv creates; each call logs a batch."""
    url = f"postgresql+psycopg2://{settings.user}@/{settings.database}?host={settings.host}&port={settings.port}"
    uv = shutil.which("uv") or sys.exit("uv is not installed, which gets MLflow; or say --no-mlflow")
    command = [uv, "run", "--quiet", "--no-project", "--python", sys.executable, "--with", "mlflow", "--with",
               "psycopg2-binary", "python", "-c", MLFLOW, url]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("w+") as errors:
        pipe = subprocess.PIPE
        command += [folder, str(MLFLOW_ROWS)]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def log_batch() -> None:
            stdin.write("\n")
            stdin.flush()
            if stdout.readline() != "done\n":
                errors.seek(0)
                sys.exit(f"MLflow failed:\n{errors.read()}")

        with process:
            yield log_batch
            stdin.close()


def _output(command: list[str], settings: Settings) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_"))}
    environment = kept | {
        "POSTGRES_HOST": settings.host, "POSTGRES_PORT": str(settings.port), "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": "", "MLOPS_DB_NAME": settings.database,
    }  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _empty(connection: Connection) -> None:
    # Write the dirty pages of the last case now, and not in the time of the next one.
    for statement in ("TRUNCATE public.monitoring_metrics", "CHECKPOINT"):
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)


def _recreate(settings: Settings) -> None:
    _drop(settings)
    _maintain(settings, "CREATE DATABASE {}")


def _drop(settings: Settings) -> None:
    _maintain(settings, "DROP DATABASE IF EXISTS {} WITH (FORCE)")


def _maintain(settings: Settings, statement: str) -> None:
    with closing(connect(replace(settings, database="postgres"))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL(statement).format(sql.Identifier(settings.database)))


def _versions(connection: Connection) -> str:
    version = connection.info.server_version
    return f"PostgreSQL {version // 10000}.{version % 10000}, Python {platform.python_version()}"


def _print_times(title: str, times: Mapping[str, list[float]], unit: str) -> None:
    factor = {"s": 1.0, "ms": 1000.0}[unit]
    reference = median(next(iter(times.values())))
    print(f"{title:<30}{f'median {unit}':>12}{'min':>9}{'max':>9}{'speed':>8}")
    for name, seconds in times.items():
        print(
            f"{name:<30}{median(seconds) * factor:>12.3f}{min(seconds) * factor:>9.3f}{max(seconds) * factor:>9.3f}"
            f"{reference / median(seconds):>8.2f}"
        )
    print()


def _ratio(times: Mapping[str, list[float]], reference: str) -> float:
    return median(times[reference]) / median(times["log_many, mappings"])


def _least(what: str, measured: float, bar: float) -> bool:
    print(f"{what}: {measured:.2f}, at least {bar}: {'holds' if measured >= bar else 'missed'}")
    return measured >= bar


def _most(what: str, measured: float, bar: float) -> bool:
    print(f"{what}: {measured:.2f}, at most {bar}: {'holds' if measured <= bar else 'missed'}")
    return measured <= bar


if __name__ == "__main__":
    sys.exit(main())
