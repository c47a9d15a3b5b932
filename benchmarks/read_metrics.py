"""How fast are metrics read, compared with psycopg2 and pandas alone, and questions about one model of a thousand?

Two databases at head on a temporary server, each with 24 months. The cases run in one process, in turn and in changing
order, after one round that is not counted. Ratios are medians of the rounds' ratios.

- Frames: one series of a million rows, one row in a hundred without a value, one in five with metadata. COPY sends the
  same two columns as CSV, and read_csv creates the same frame. In one case the times are sent as numbers, which pandas
  reads faster.
- Rows: history(), compared with fetching the same eight columns with psycopg2.
- Buckets: of a day each, by the server, compared with read_sql and resample.
- One model: the timeline and latest() of one model, among 100,000 versions, decisions and series of 1,000 models.

Exit code 0 if history_frame and history() take at most 1.5 times as long as COPY and as psycopg2, and each question
about one model at most 10 ms.

    uv run python benchmarks/read_metrics.py
    uv run python benchmarks/read_metrics.py --rows 100000 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import io
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import fields, replace
from statistics import median

import pandas as pd
import psycopg2
import psycopg2.extensions

from metric_rows import fill, partitions
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.metrics.history import Metric
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

FRAME_BAR, HISTORY_BAR, MODEL_BAR_MS = 1.5, 1.5, 10
MONTHS = 24
OF_A_MODEL = 100
FETCHED = 200_000
SERIES = "model_name = 'churn' AND metric_type = 'drift' AND metric_name = 'age'"
QUERY = (
    f"SELECT timestamp, metric_value FROM monitoring_metrics WHERE {SERIES} ORDER BY monitoring_metrics.timestamp, id"
)
AS_NUMBERS = QUERY.replace("timestamp,", "(date_part('epoch', timestamp) * 1e6)::bigint AS timestamp,", 1)
ROWS = f"""
SELECT {", ".join(field.name for field in fields(Metric))} FROM monitoring_metrics
 WHERE {SERIES} ORDER BY timestamp DESC, id DESC LIMIT {FETCHED}
"""
TIMELINE = "SELECT * FROM v_model_timeline WHERE model_name = 'm7'"
FILL_SERIES = """
INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value, metadata)
SELECT now() - (%(rows)s - i) * interval '700 days' / %(rows)s, 'churn', 'drift', 'age',
       CASE WHEN mod(i, 100) > 0 THEN sin(i) END,
       CASE WHEN mod(i, 5) = 0 THEN '{"window": "24h", "rows": 1000}'::jsonb END
  FROM generate_series(1, %(rows)s) AS i
"""
# Each model has 100 versions: every third is rejected, the others are promoted in turn, every seventh twice.
FILL_MODELS = (
    """
    INSERT INTO model_versions
           (mlflow_run_id, model_version, model_name, status, f1_score, brier_score, created_at, promoted_at)
    SELECT 'run_' || i, i / 1000, 'm' || mod(i, 1000), CASE i / 1000 WHEN 99 THEN 'production' ELSE 'archived' END,
           0.9, 0.1, at.moment, CASE WHEN mod(i, 3) > 0 THEN at.moment + interval '1 hour' END
      FROM generate_series(0, 99999) AS i
     CROSS JOIN LATERAL (SELECT now() - (100000 - i) * interval '10 minutes' AS moment) AS at
    """,
    """
    INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, model_name, gate_results)
    SELECT coalesce(promoted_at, created_at), CASE WHEN promoted_at IS NULL THEN 'reject' ELSE 'promote' END,
           mlflow_run_id, model_name, '{"minimum_coverage": {"passed": true, "value": 0.97, "threshold": 0.9}}'::jsonb
      FROM model_versions
    UNION ALL
    SELECT promoted_at - interval '1 day', 'promote', mlflow_run_id, model_name, NULL
      FROM model_versions WHERE mod(id, 7) = 0 AND promoted_at IS NOT NULL
    """,
    """
    INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)
    SELECT now() - months * interval '30 days', 'm' || mod(i, 1000), 'drift', 'metric_' || i / 1000, 0.5
      FROM generate_series(0, 99999) AS i, generate_series(0, 4) AS months
    """,
)


def main() -> int:
    """Measure and print; 0 if the bars hold."""
    options = _options()
    with throwaway_server(options.programs) as server:
        print(f"{version(server)}, pandas {pd.__version__}; {options.rounds} rounds in turn, warm\n")
        series, models = (replace(server, database=name) for name in ("series", "models"))
        _filled(series, (FILL_SERIES.replace("%(rows)s", str(options.rows)),))
        _filled(models, FILL_MODELS)
        with DatabaseManager(series) as db, closing(_driver(series)) as connection:
            frames = _timed(_frames(db, connection, options.rows), options.rounds)
            _print(f"{options.rows:,} rows as a frame", frames)
            rows = _timed(_rows(db, connection, min(options.rows, FETCHED)), options.rounds)
            _print(f"{min(options.rows, FETCHED):,} rows as objects", rows)
            _print("a frame of days", _timed(_days(db), options.rounds))
        with DatabaseManager(models) as db, closing(_driver(models)) as connection:
            of_model = _timed(_of_one_model(db, connection), 5 * options.rounds)
            _print("one of 1,000 models", of_model)
    held = [
        print_bar("history_frame against COPY", _ratio(frames, "history_frame"), FRAME_BAR),
        *(print_bar(f"{name} against psycopg2", _ratio(rows, name), HISTORY_BAR) for name in list(rows)[2:]),
        *(print_bar(f"ms: {name}", 1000 * median(times), MODEL_BAR_MS) for name, times in of_model.items()),
    ]
    return 0 if all(held) else 1


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="how many rows the series has (default 1 million)")
    options.add_argument("--rounds", type=int, default=9, help="how often each case runs (default 9)")
    return options.parse_args()


def _driver(settings: Settings) -> psycopg2.extensions.connection:
    return psycopg2.connect(
        host=settings.host, port=settings.port, user=settings.user, dbname=settings.database, options="-c timezone=UTC"
    )


def _filled(settings: Settings, statements: tuple[str, ...]) -> None:
    recreate_database(settings)
    upgrade(settings)
    with connect(settings) as connection:
        fill(connection, rows=1_000, months=MONTHS)  # for the months
        connection.execute("TRUNCATE monitoring_metrics, mlops_internal.metric_series")
        for statement in statements:
            connection.execute(statement)
        tables = ("model_versions", "retraining_decisions", "mlops_internal.metric_series", *partitions(connection))
        for table in tables:
            connection.execute(f"VACUUM (ANALYZE) {table}")


def _frames(
    db: DatabaseManager, connection: psycopg2.extensions.connection, count: int
) -> dict[str, Callable[[], None]]:
    def copied(query: str, moments: Callable[["pd.Series[str]"], "pd.Series[pd.Timestamp]"]) -> pd.DataFrame:
        file = io.BytesIO()
        with connection, connection.cursor() as cursor:
            cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", file)
        file.seek(0)
        frame = pd.read_csv(file, dtype={"metric_value": "float64"})
        frame["timestamp"] = moments(frame["timestamp"])
        return frame.set_index("timestamp")

    def case(make: Callable[[], pd.DataFrame]) -> Callable[[], None]:
        def run() -> None:
            frame = make()
            assert (len(frame), str(frame.index.dtype)) == (count, "datetime64[us, UTC]"), frame

        return run

    return {
        "COPY, read_csv": case(
            lambda: copied(QUERY, lambda moments: pd.to_datetime(moments, format="ISO8601", utc=True))
        ),
        "COPY of numbers, read_csv": case(
            lambda: copied(AS_NUMBERS, lambda moments: moments.astype("datetime64[us]").dt.tz_localize("UTC"))
        ),
        "read_sql": case(lambda: pd.read_sql(QUERY, db.engine, index_col="timestamp")),
        "history_frame": case(lambda: db.monitoring.history_frame("drift", "age", model_name="churn")),
        "frame, wide": case(lambda: db.monitoring.frame("drift", layout="wide")),
        "history_frame, metadata=True": case(
            lambda: db.monitoring.history_frame("drift", "age", model_name="churn", metadata=True)
        ),
    }


def _rows(db: DatabaseManager, connection: psycopg2.extensions.connection, count: int) -> dict[str, Callable[[], None]]:
    def fetchall() -> None:
        with connection, connection.cursor() as cursor:
            cursor.execute(ROWS)
            assert len(cursor.fetchall()) == count

    def fetchmany() -> None:
        with connection, connection.cursor() as cursor:
            cursor.execute(ROWS)
            assert sum(len(page) for page in iter(lambda: cursor.fetchmany(5_000), [])) == count

    def listed() -> None:
        assert len(list(db.monitoring.history("drift", "age", model_name="churn", limit=count))) == count

    def one_by_one() -> None:
        assert sum(1 for _ in db.monitoring.history("drift", "age", model_name="churn", limit=count)) == count

    return {"fetchall": fetchall, "fetchmany": fetchmany, "list(history())": listed, "for row in history()": one_by_one}


def _days(db: DatabaseManager) -> dict[str, Callable[[], None]]:
    def resample() -> None:
        values = pd.read_sql(QUERY, db.engine, index_col="timestamp")["metric_value"]
        assert len(values.resample("1D").agg(["min", "mean", "max", "count"])) in (700, 701)

    def every() -> None:
        assert len(db.monitoring.history_frame("drift", "age", model_name="churn", every="1d")) in (700, 701)

    return {"read_sql, resample": resample, 'history_frame, every="1d"': every}


def _of_one_model(db: DatabaseManager, connection: psycopg2.extensions.connection) -> dict[str, Callable[[], None]]:
    def timeline() -> None:
        with connection, connection.cursor() as cursor:
            cursor.execute(TIMELINE)
            assert len(cursor.fetchall()) == OF_A_MODEL

    def case(ask: Callable[[], list[object]]) -> Callable[[], None]:
        def run() -> None:
            assert len(ask()) == OF_A_MODEL

        return run

    return {
        "v_model_timeline": timeline,
        "monitoring.latest": case(lambda: list(db.monitoring.latest("m7"))),
        "models.list": case(lambda: list(db.models.list("m7"))),
        "decisions.history": case(lambda: list(db.decisions.history("m7"))),
    }


def _timed(cases: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name in random.sample(list(cases), len(cases)):
            started = time.perf_counter()
            cases[name]()
            if turn:
                times[name].append(time.perf_counter() - started)
    return times


def _ratio(times: Mapping[str, list[float]], name: str) -> float:
    reference = next(iter(times.values()))
    return median(seconds / other for seconds, other in zip(times[name], reference, strict=True))


def _print(title: str, times: Mapping[str, list[float]]) -> None:
    print_table(
        (title, "median ms", "min", "max", "ratio"),
        ([name, *spread(seconds), f"{_ratio(times, name):.2f}"] for name, seconds in times.items()),
    )
    print()


if __name__ == "__main__":
    sys.exit(main())
