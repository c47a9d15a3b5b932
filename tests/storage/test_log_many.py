import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as changed
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from psycopg2.extensions import set_wait_callback
from psycopg2.extras import wait_select

from mlops_db.errors import (
    ConnectionLostError,
    ContentionError,
    InvalidMetricError,
    InvalidValueError,
    StatementFailedError,
    StatementTimeoutError,
    WaitCallbackError,
)
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.monitoring import LogResult, Monitoring
from support.citus import has_citus
from support.database import TIMEOUT_S, Database

pytestmark = pytest.mark.libraries

UTC = timezone.utc
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY = 20_000
STORED = (
    "SELECT model_name, metric_type, metric_name, timestamp, metric_value, metadata FROM monitoring_metrics ORDER BY id"
)


def row(value: object = 0.5, **others: Any) -> dict[str, Any]:
    return {"metric_type": "drift", "metric_name": "age", "metric_value": value, **others}


def values(head: Database, where: str = "true") -> list[float | None]:
    return [value for (value,) in head.query(f"SELECT metric_value FROM monitoring_metrics WHERE {where} ORDER BY id")]


def test_rows_are_stored_as_they_are(head: Database, monitoring: Monitoring) -> None:
    rows = [
        row(1, timestamp=NOON.astimezone(ZoneInfo("America/New_York")), metadata={"n": [1, None]}, model_name="churn"),
        row(None, timestamp=NOON, metadata={"error": "no rows"}),
        row(np.float32(0.5), metric_name="a\tb\\N\n\\.\n", timestamp=NOON, metadata="text \\ with\nlines"),
    ]
    assert monitoring.log_many(iter(rows)) == LogResult(written=3, replaced=0, skipped=(), skipped_count=0)
    assert head.query(STORED) == [
        ("churn", "drift", "age", NOON, 1.0, {"n": [1, None]}),
        ("default", "drift", "age", NOON, None, {"error": "no rows"}),
        ("default", "drift", "a\tb\\N\n\\.\n", NOON, 0.5, "text \\ with\nlines"),
    ]


def test_rows_without_a_timestamp_are_all_about_the_call(head: Database, monitoring: Monitoring) -> None:
    monitoring.log_many(row(n, timestamp=None) if n % 2 else row(n) for n in range(MANY))
    assert head.query(
        "SELECT count(*), count(DISTINCT timestamp), bool_and(timestamp = created_at) FROM monitoring_metrics"
    ) == [(MANY, 1, True)]
    assert [state.metric_value for state in monitoring.latest()] == [MANY - 1]


@pytest.mark.parametrize("rows", [[], iter(()), pd.DataFrame(columns=["metric_type", "metric_name", "metric_value"])])
def test_no_rows(head: Database, monitoring: Monitoring, rows: Any) -> None:
    monitoring.log_many([row(timestamp=NOON)])
    assert monitoring.log_many(rows) == LogResult(0, 0, (), 0)
    assert monitoring.log_many(rows, replace=NOON) == LogResult(0, 0, (), 0)
    assert values(head) == [0.5]


def test_refused_rows_are_left_out_if_wanted(head: Database, monitoring: Monitoring) -> None:
    rows = [row(n) for n in range(6)]
    rows[1]["metric_value"] = float("nan")
    rows[4]["metadata"] = {"a": {1}}
    done = monitoring.log_many(rows, on_invalid="skip")
    assert (done.written, done.skipped_count) == (4, 2)
    assert [(skipped.row, skipped.key) for skipped in done.skipped] == [(1, "metric_value"), (4, "metadata.a")]
    assert done.skipped[0].reason == "nan is not a finite number"
    assert "'metric_name': 'age'" in done.skipped[0].excerpt
    assert values(head) == [0, 2, 3, 5]
    with pytest.raises(InvalidValueError, match="on_invalid: is 'ignore'"):
        monitoring.log_many(rows, on_invalid="ignore")  # type: ignore[arg-type]


FINE = [row(n) for n in range(MANY)]


class OfTheCallerError(Exception):
    pass


def ends_with(error: BaseException) -> Iterator[dict[str, Any]]:
    yield from (row(n, metric_name=f"name {n % 7}") for n in range(MANY))
    raise error


FAILURES: Mapping[str, tuple[Callable[[], Iterable[Any]], type[BaseException], str]] = MappingProxyType(
    {
        "a refused row": (lambda: [*FINE, row("x")], InvalidMetricError, f"row {MANY}: metric_value: "),
        "the caller's error": (lambda: ends_with(OfTheCallerError("no disk")), OfTheCallerError, "^no disk$"),
        "an interrupt": (lambda: ends_with(KeyboardInterrupt()), KeyboardInterrupt, "^$"),
        "the end of a task": (lambda: ends_with(SystemExit(3)), SystemExit, "^3$"),
        # As with a disk that is full, the server finds out when it has stored most of the rows.
        "the server": (lambda: [*FINE, row(-1)], StatementFailedError, "monitoring_metrics_not_below_0"),
    }
)


@pytest.mark.parametrize("replace", [None, NOON])
@pytest.mark.parametrize("failure", FAILURES)
def test_after_an_error_nothing_is_left(
    head: Database, monitoring: Monitoring, failure: str, replace: datetime | None
) -> None:
    head.query("ALTER TABLE monitoring_metrics ADD CONSTRAINT monitoring_metrics_not_below_0 CHECK (metric_value >= 0)")
    monitoring.log("drift", "before", 7, timestamp=NOON)
    rows, error, text = FAILURES[failure]
    with pytest.raises(error, match=text) as caught:
        monitoring.log_many(rows(), replace=replace)
    assert caught.value.__cause__ is None or failure == "the server"
    assert values(head) == [7]
    assert [series.metric_name for series in monitoring.series()] == ["before"]
    assert monitoring.log_many([row(1)]).written == 1


def test_a_statement_timeout_leaves_nothing(head: Database) -> None:
    asleep = threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        yield from (row(n) for n in range(MANY))
        asleep.wait(2)
        yield from (row(n) for n in range(MANY))

    settings = changed(head.settings, parameters={"options": "-c statement_timeout=1500ms"})
    with DatabaseManager(settings) as db:
        with pytest.raises(StatementTimeoutError, match="statement timeout") as caught:
            db.monitoring.log_many(rows())
        assert caught.value.hint
        assert values(head) == []
        assert db.monitoring.log_many([row(1)]).written == 1


def test_a_connection_that_breaks_leaves_nothing(head: Database, monitoring: Monitoring) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from (row(n) for n in range(MANY))
        head.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY public.monitoring%'")
        yield from (row(n) for n in range(MANY))

    with pytest.raises(ConnectionLostError) as caught:
        monitoring.log_many(rows())
    assert caught.value.committed is False
    assert values(head) == []
    assert monitoring.log_many([row(1)]).written == 1


def test_a_process_that_waits_in_a_way_of_its_own(head: Database, monitoring: Monitoring) -> None:
    set_wait_callback(wait_select)
    try:
        with pytest.raises(WaitCallbackError) as caught:
            monitoring.log_many([row(1)])
        monitoring.log("drift", "age", 2)
    finally:
        set_wait_callback(None)
    assert "log()" in caught.value.hint
    assert values(head) == [2]


FOOTPRINT = """
from datetime import datetime, timezone
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager

def rows(count):
    for n in range(count):
        # Ever new names, timestamps and metadata: what is remembered of them must not pile up.
        yield {"metric_type": "drift", "metric_name": f"name {n}", "metric_value": n, "metadata": {"n": n},
               "timestamp": datetime.fromtimestamp(1.7e9 + n, timezone.utc)}

def frame(count):
    import pandas
    return pandas.DataFrame(rows(count))

def table(count):
    import polars
    return polars.DataFrame(list(rows(count)))

def peak():
    # Not getrusage(): what it tells survives exec, and would be the parent's.
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

with DatabaseManager(Settings.from_environment()) as db:
    given = {make}
    few = {few}
    db.monitoring.log_many(few)
    before = peak()
    assert db.monitoring.log_many(given, on_invalid="skip").written == {count}
    print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "few", "count"),
    [
        ("rows(100_000)", "rows(20_000)", 100_000),
        ("({**row, 'metric_value': 'x' * 100} for row in rows(100_000))", "rows(20_000)", 0),
        ("frame(100_000)", "given[:20_000]", 100_000),
        ("table(100_000)", "given[:20_000]", 100_000),
    ],
    ids=["generator", "everything refused", "frame", "table"],
)
def test_memory_does_not_grow_with_the_rows(head: Database, make: str, few: str, count: int) -> None:
    if not has_citus(head):  # quicker; the server's memory is not the question
        head.query("ALTER TABLE monitoring_metrics DISABLE TRIGGER USER")
    code = FOOTPRINT.replace("{make}", make).replace("{few}", few).replace("{count}", str(count))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8_000, "kB more than for 20,000 rows"


# DataFrames


def test_a_frame(head: Database, monitoring: Monitoring) -> None:
    frame = pd.DataFrame(
        {
            "metric_name": pd.Categorical(["age", "income", "age"]),
            "metric_value": pd.array([1, None, 3], dtype="Int64"),
            "metric_type": "drift",
            "metadata": [{"n": 1}, None, float("nan")],
            "timestamp": pd.date_range(NOON, periods=3, freq="h").tz_convert("Europe/Berlin"),
        },
        index=[7, 7, 7],
    )
    assert monitoring.log_many(frame).written == 3
    assert head.query(STORED) == [
        ("default", "drift", "age", NOON, 1.0, {"n": 1}),
        ("default", "drift", "income", NOON + timedelta(hours=1), None, None),
        ("default", "drift", "age", NOON + timedelta(hours=2), 3.0, None),
    ]


def test_rows_of_a_frame_are_counted_by_position(head: Database, monitoring: Monitoring) -> None:
    frame = pd.DataFrame({"metric_type": "drift", "metric_name": "age", "metric_value": [*range(MANY), float("nan")]})
    frame.index = frame.index + 1000
    with pytest.raises(InvalidMetricError, match=f"row {MANY}: metric_value: nan is not a finite number"):
        monitoring.log_many(frame)
    assert values(head) == []
    assert monitoring.log_many(frame, on_invalid="skip").written == MANY


@pytest.mark.parametrize(
    ("frame", "key", "reason"),
    [
        (pd.DataFrame({"metric_type": ["a"], "metric_value": [1]}), "metric_name", "is missing"),
        (pd.DataFrame([{**row(), "value": 1}]), "value", "is not known"),
        (pd.DataFrame([["a", "b", 1, 2]], columns=[*row(), "metric_value"]), "metric_value", "is the name of several"),
        (pd.DataFrame([[1]]), "metric_type", "is missing"),
    ],
)
def test_columns_that_are_no_metrics(monitoring: Monitoring, frame: pd.DataFrame, key: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{key}: {reason}"):
        monitoring.log_many(frame, on_invalid="skip")


@pytest.mark.parametrize(
    ("column", "hole"),
    [
        ("metric_value", float("nan")), ("metric_name", float("nan")), ("timestamp", pd.NaT), ("model_name", None),
        ("timestamp", pd.Timestamp("2026-01-01")),
    ],
)  # fmt: skip
def test_a_hole_in_a_frame_is_refused_where_it_means_nothing(monitoring: Monitoring, column: str, hole: object) -> None:
    frame = pd.DataFrame([row(timestamp=NOON, model_name="m"), row(timestamp=NOON, model_name="m")])
    frame[column] = frame[column].astype(object)
    frame.loc[1, column] = hole
    with pytest.raises(InvalidMetricError, match=f"^row 1: {column}: "):
        monitoring.log_many(frame)


def test_a_naive_column_of_a_frame_is_refused(monitoring: Monitoring) -> None:
    frame = pd.DataFrame([row(timestamp=pd.Timestamp("2026-01-01"))])
    with pytest.raises(InvalidMetricError, match="row 0: timestamp: 2026-01-01 00:00:00 has no time zone"):
        monitoring.log_many(frame)


# Reruns


def test_a_rerun_replaces_its_own_rows_only(head: Database, monitoring: Monitoring) -> None:
    kept = [
        row(10, model_name="churn", timestamp=NOON),
        row(11, metric_type="coverage", timestamp=NOON),
        row(12, timestamp=NOON + timedelta(microseconds=1)),
        row(13, timestamp=NOON - timedelta(days=40)),
    ]
    monitoring.log_many(kept)
    assert monitoring.log_many([row(1), row(2, metric_name="income")], replace=NOON).replaced == 0
    # One series fewer, which keeps its value, and one of another kind that the first run did not have.
    rerun = monitoring.log_many(
        [row(3, timestamp=NOON), row(4, metric_type="performance")], replace=NOON.astimezone(ZoneInfo("Asia/Tokyo"))
    )
    assert (rerun.written, rerun.replaced) == (2, 1)
    assert values(head) == [10, 11, 12, 13, 2, 3, 4]
    assert values(head, "metric_value < 10 AND timestamp = '2026-03-01 12:00:00+00'") == [2, 3, 4]


def test_a_rerun_of_many_rows(head: Database, monitoring: Monitoring) -> None:
    for value in (1, 2):
        done = monitoring.log_many((row(value, metric_name=f"m{n}") for n in range(MANY)), replace=NOON)
        assert done.replaced == (0 if value == 1 else MANY)
    assert head.query("SELECT count(*), min(metric_value) FROM monitoring_metrics") == [(MANY, 2)]


def test_a_rerun_with_refused_rows_only_removes_nothing(head: Database, monitoring: Monitoring) -> None:
    monitoring.log_many([row(1)], replace=NOON)
    done = monitoring.log_many([row("x")], replace=NOON, on_invalid="skip")
    assert (done.written, done.replaced) == (0, 0)
    assert values(head) == [1]


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (datetime(2026, 1, 1), "has no time zone"),  # noqa: DTZ001
        (datetime(2999, 1, 1, tzinfo=UTC), "more than a day ahead"),
        ("2026-01-01", "is not a datetime"),
        (True, "is not a datetime"),
    ],
)
def test_what_is_no_moment_to_replace(monitoring: Monitoring, moment: Any, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^replace: .*{reason}"):
        monitoring.log_many([row()], replace=moment)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_of_two_reruns_at_once_one_remains_whole(head: Database, isolation: str) -> None:
    head.query(f"""ALTER DATABASE "{head.settings.database}" SET default_transaction_isolation = '{isolation}'""")
    rounds = 3
    both = threading.Barrier(2)

    def rows(value: int) -> Iterator[dict[str, Any]]:
        # Both write their first rows before either writes its last, so that their ids are entangled.
        for half in range(2):
            yield from (row(value, metric_name=f"m{n}") for n in range(half * 2000, half * 2000 + 2000))
            both.wait(TIMEOUT_S)

    with DatabaseManager(head.settings) as db, ThreadPoolExecutor(2) as threads:
        db.monitoring.log_many((row(0, metric_name=f"m{n}") for n in range(4000)), replace=NOON)
        for turn in range(rounds):
            replaced = threads.map(
                lambda value: db.monitoring.log_many(rows(value), replace=NOON).replaced, (2 * turn + 1, 2 * turn + 2)
            )
            assert sorted(replaced) == [4000, 4000]
            assert head.query("SELECT count(*), count(DISTINCT metric_value) FROM monitoring_metrics") == [(4000, 1)]
            assert values(head, "metric_name = 'm0'")[0] in (2 * turn + 1, 2 * turn + 2)


def test_a_rerun_that_began_first_and_ends_last_remains(head: Database, monitoring: Monitoring) -> None:
    monitoring.log_many([row(1)], replace=NOON)

    def slow() -> Iterator[dict[str, Any]]:
        yield from (row(2) for _ in range(3000))
        assert monitoring.log_many([row(3), row(3)], replace=NOON).replaced == 1
        yield row(2)

    assert monitoring.log_many(slow(), replace=NOON).replaced == 2
    assert values(head) == [2] * 3001


def test_reruns_of_one_moment_wait_for_each_other_and_others_do_not(head: Database, monitoring: Monitoring) -> None:
    impatient = changed(head.settings, parameters={"options": "-c lock_timeout=200ms"})
    with head.connection.transaction(), DatabaseManager(impatient) as db:
        moment = f"mlops_db.replace {NOON.isoformat()}"
        head.query("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [moment])
        assert db.monitoring.log_many([row(1)], replace=NOON + timedelta(days=1)).written == 1
        assert db.monitoring.log_many([row(1)]).written == 1
        with pytest.raises(ContentionError, match="lock timeout"):
            db.monitoring.log_many([row(2)], replace=NOON)
    assert values(head) == [1, 1]
    assert monitoring.log_many([row(2)], replace=NOON).written == 1


def test_two_jobs_of_one_kind_and_moment_leave_each_other_s_series_alone(
    head: Database, monitoring: Monitoring
) -> None:
    monitoring.log_many([row(1, metric_type="quality", metric_name="row_count")], replace=NOON)

    other = monitoring.log_many([row(2, metric_type="quality", metric_name="missing")], replace=NOON)

    assert other.replaced == 0
    assert head.query("SELECT metric_name, metric_value FROM monitoring_metrics ORDER BY 1") == [
        ("missing", 2.0),
        ("row_count", 1.0),
    ]
