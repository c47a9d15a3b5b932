import enum
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.errors import InvalidValueError
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.metrics.history import HISTORY, LEAST_ID, PAGE, Metric
from mlops_db.storage.monitoring import Monitoring
from support.database import Database

pytestmark = pytest.mark.libraries

UTC = timezone.utc
DAY = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=100).filter(
    str.strip
)
# What every JSON has, and PostgreSQL's numeric takes: numbers come back as int if they are whole.
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


class Untellable:
    def __repr__(self) -> str:
        return str(1 / 0)

    __str__ = __repr__


class UntellableError(Untellable, Exception):
    pass


class Why(str, enum.Enum):
    NO_ROWS = "no rows"

    __str__ = Untellable.__repr__


def test_a_value_is_stored(head: Database, monitoring: Monitoring) -> None:
    moment = datetime(2026, 7, 1, 14, 0, 0, 123456, tzinfo=ZoneInfo("Europe/Berlin"))
    id_ = monitoring.log(
        "drift", "age", 1, timestamp=moment, metadata={"threshold": 0.1, "stat_test": "ks"}, model_name="churn"
    )
    assert head.query("SELECT id, timestamp, metric_type, metric_name, metric_value, metadata, model_name"
                      " FROM monitoring_metrics") == [
        (id_, moment, "drift", "age", 1.0, {"threshold": 0.1, "stat_test": "ks"}, "churn")
    ]  # fmt: skip


def test_a_value_is_about_now_by_default(head: Database, monitoring: Monitoring) -> None:
    monitoring.log("drift", "age", 0.1)
    assert head.query(
        "SELECT model_name, metadata, timestamp = created_at, timestamp > now() - interval '1 min'"
        " FROM monitoring_metrics"
    ) == [("default", None, True, True)]


def test_what_is_refused_is_not_even_sent() -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    for change, key in (
        ({"metric_type": "x" * 101}, "metric_type"),
        ({"metric_name": "\0"}, "metric_name"),
        ({"model_name": ""}, "model_name"),
        ({"metric_value": float("nan")}, "metric_value"),
        ({"metric_value": "0.5"}, "metric_value"),
        ({"timestamp": datetime(2026, 1, 1)}, "timestamp"),  # noqa: DTZ001
        ({"metadata": {"a": {1}}}, "metadata.a"),
    ):
        row: dict[str, Any] = {"metric_type": "drift", "metric_name": "age", "metric_value": 0.5, **change}
        with pytest.raises(InvalidValueError, match=f"^{key}: ") as caught:
            nowhere.log(**row)
        assert caught.value.key == key


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no rows"), "ValueError: no rows"),
        ("only one class", "only one class"),
        ("NUL \0 and \ud800", "NUL \\0 and \\ud800"),
        (RuntimeError("x" * 99_999), "RuntimeError: " + "x" * 9_986),
        (UntellableError("no rows"), "UntellableError, whose text raises ZeroDivisionError"),
        (KeyError(Untellable()), "KeyError, whose text raises ZeroDivisionError"),
        (Why.NO_ROWS, "no rows"),
    ],
)
def test_a_failed_computation_is_no_value(
    head: Database, monitoring: Monitoring, error: BaseException | str, text: str
) -> None:
    monitoring.log("drift", "share", 0.4, timestamp=DAY)
    id_ = monitoring.log_failure("drift", "share", error, metadata={"window": "24h"})
    assert head.query("SELECT id, metric_value, metadata FROM monitoring_metrics ORDER BY id DESC LIMIT 1") == [
        (id_, None, {"window": "24h", "error": text})
    ]
    assert [(state.health, state.metric_value, state.previous_value) for state in monitoring.latest()] == [
        ("failed", None, 0.4)
    ]


@pytest.mark.parametrize("metadata", [3, "window", [], [("window", "24h")], 0.0, False])
def test_the_metadata_of_a_failure_is_a_mapping(metadata: Any) -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError, match=f"^metadata: {re.escape(repr(metadata))} is no mapping"):
        nowhere.log_failure("drift", "share", "why", metadata=metadata)


def test_the_reason_of_a_failure_does_not_replace_anothers() -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError, match="metadata: has the key error already"):
        nowhere.log_failure("drift", "share", "why", metadata={"error": 0.1})


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, NAMES, NAMES, st.floats(allow_nan=False, allow_infinity=False), JSON), max_size=20))
def test_what_was_logged_comes_back(head: Database, rows: list[tuple[str, str, str, float, Any]]) -> None:
    keys = ("metric_type", "metric_name", "model_name", "metric_value", "metadata")
    with DatabaseManager(head.settings) as db:
        head.query("TRUNCATE monitoring_metrics")
        db.monitoring.log_many(dict(zip(keys, row, strict=True)) for row in rows)
        if rows:
            metric_type, metric_name, model_name, value, metadata = rows[0]
            db.monitoring.log(metric_type, metric_name, value, metadata=metadata, model_name=model_name)
            series = next(iter(db.monitoring.history(metric_type, metric_name, model_name=model_name)))
            assert (series.metric_value, series.metadata) == (value, metadata)
    stored = head.query(f"SELECT {', '.join(keys)} FROM monitoring_metrics ORDER BY id")
    assert stored == [*rows, *rows[:1]]


def test_the_newest_of_every_series(monitoring: Monitoring) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for model_name, metric_name, value, hours in (
        ("churn", "f1", 0.8, 3), ("churn", "f1", 0.7, 1), ("churn", "auc", 0.9, 2), ("anomalies", "f1", 0.6, 30),
    ):  # fmt: skip
        monitoring.log("performance", metric_name, value, timestamp=now - timedelta(hours=hours), model_name=model_name)
    monitoring.log("drift", "share", 0.1, model_name="churn", timestamp=now - timedelta(hours=9), metadata=[1])
    monitoring.expect("performance", "f1", lower=0.75, model_name="churn")
    monitoring.expect("performance", "auc", lower=0.75, upper=0.85, model_name="churn")
    monitoring.expect("performance", "f1", interval=timedelta(days=1), model_name="anomalies")
    monitoring.expect("performance", "brier", interval=timedelta(days=1), model_name="anomalies")

    states = monitoring.latest()
    assert [(s.model_name, s.metric_name, s.health, s.stale) for s in states] == [
        ("churn", "f1", "low", False),
        ("churn", "auc", "high", False),
        ("churn", "share", "ok", False),
        ("anomalies", "f1", "stale", True),
        ("anomalies", "brier", "missing", True),
    ]
    newest = states[0]
    assert (newest.metric_value, newest.previous_value, newest.lower_threshold) == (0.7, 0.8, 0.75)
    assert newest.delta == pytest.approx(-0.1)
    assert newest.timestamp == now - timedelta(hours=1)
    assert newest.age is not None
    assert timedelta(hours=1) <= newest.age < timedelta(hours=2)
    assert [s.metric_name for s in monitoring.latest("anomalies")] == ["f1", "brier"]
    assert [s.metric_name for s in monitoring.latest("churn", "drift")] == ["share"]
    assert [s.metadata for s in monitoring.latest(metric_type="drift")] == [[1]]
    assert monitoring.latest("nobody") == []


def test_an_expectation_says_all(monitoring: Monitoring) -> None:
    monitoring.expect("drift", "b", interval=timedelta(hours=1), lower=1, upper=1)
    monitoring.expect("drift", "a", upper=2)
    monitoring.expect("drift", "b", upper=0.5)
    monitoring.log("drift", "c", 0, model_name="churn")
    series = monitoring.series()
    assert [
        (s.model_name, s.metric_name, s.expected_interval, s.lower_threshold, s.upper_threshold) for s in series
    ] == [("churn", "c", None, None, None), ("default", "a", None, None, 2.0), ("default", "b", None, None, 0.5)]
    assert series[0].registered_at.tzinfo is UTC
    assert monitoring.series("churn") == series[:1]


@pytest.mark.parametrize(
    ("expectation", "key"),
    [
        ({"interval": timedelta()}, "interval"),
        ({"interval": timedelta(seconds=-1)}, "interval"),
        ({"interval": 3600}, "interval"),
        ({"lower": float("nan")}, "lower"),
        ({"upper": float("inf")}, "upper"),
        ({"upper": "1"}, "upper"),
        ({"lower": 1.0, "upper": 0.5}, "lower"),
        ({"metric_name": ""}, "metric_name"),
    ],
)
def test_what_cannot_be_expected(expectation: dict[str, Any], key: str) -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError, match=f"^{key}: "):
        nowhere.expect(**{"metric_type": "drift", "metric_name": "age", **expectation})


def test_history_is_newest_first_and_within_its_bounds(monitoring: Monitoring) -> None:
    # Over more months than one, so that several partitions are read; three rows of each moment.
    moments = [DAY - timedelta(days=20 * n) for n in range(6)]
    monitoring.log_many(
        {"metric_type": "drift", "metric_name": name, "metric_value": n, "timestamp": moment}
        for n, moment in enumerate(moments)
        for name in ("age", "age", "age", "income")
    )
    everything = list(monitoring.history("drift", "age"))
    assert [row.timestamp for row in everything] == [moment for moment in moments for _ in range(3)]
    assert everything == sorted(everything, key=lambda row: (row.timestamp, row.id), reverse=True)
    assert everything[0].timestamp.tzinfo is UTC
    assert list(monitoring.history("drift", "age", limit=4)) == everything[:4]
    assert list(monitoring.history("drift", "age", limit=0)) == []
    within = monitoring.history("drift", "age", since=moments[3], until=moments[1].astimezone(ZoneInfo("Asia/Tokyo")))
    assert list(within) == everything[6:12]
    assert list(monitoring.history("drift", "age", model_name="churn")) == []


def test_history_reads_page_after_page(head: Database, monitoring: Monitoring) -> None:
    rows = 2 * PAGE
    # Of each moment 1,000 rows, so that pages end within one.
    monitoring.log_many(
        {"metric_type": "drift", "metric_name": "age", "metric_value": n, "timestamp": DAY + timedelta(days=n // 1000)}
        for n in range(rows)
    )
    history = monitoring.history("drift", "age", limit=rows - 1)
    newest = next(history)
    assert isinstance(newest, Metric)
    # No connection is kept while nobody asks for more.
    busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE '%in transaction%'"
    assert head.value(busy) == 0
    assert [newest.metric_value, *(row.metric_value for row in history)] == list(range(rows - 1, 0, -1))
    assert sum(1 for _ in monitoring.history("drift", "age")) == rows


def test_history_needs_no_partition_outside_of_its_bounds(head: Database) -> None:
    parameters = {
        "model_name": "default", "metric_type": "drift", "metric_name": "age", "since": datetime.now(UTC),
        "until": datetime.now(UTC), "id": LEAST_ID, "size": PAGE,
    }  # fmt: skip
    with DatabaseManager(head.settings) as db, db.connection() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {HISTORY}", parameters))
    assert plan.count(" on monitoring_metrics_") == 1
    assert "Index Scan Backward" in plan


@pytest.mark.parametrize(
    ("question", "key"),
    [
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001
        ({"until": "2026-01-01"}, "until"),
        ({"limit": -1}, "limit"),
        ({"metric_name": "a\0"}, "metric_name"),
        ({"metric_type": None}, "metric_type"),
        ({"model_name": ""}, "model_name"),
    ],
)
def test_history_refuses_wrong_arguments_at_once(question: dict[str, Any], key: str) -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError, match=f"^{key}: "):
        nowhere.history(**{"metric_type": "drift", "metric_name": "age", **question})


def test_what_is_no_name_has_no_series() -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError, match=r"^metric_type: "):
        nowhere.latest(metric_type="drift\0")
    with pytest.raises(InvalidValueError, match=r"^model_name: "):
        nowhere.series(7)  # type: ignore[arg-type]


def test_times_are_in_utc_whatever_the_session_says(head: Database, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "from mlops_db.settings import Settings\n"
        "from mlops_db.storage.db_manager import DatabaseManager\n"
        "with DatabaseManager(Settings.from_environment()) as db:\n"
        "    db.monitoring.log('drift', 'age', 1)\n"
        "    db.monitoring.log_many([{'metric_type': 'drift', 'metric_name': 'age', 'metric_value': 2}])\n"
        "    newest, = db.monitoring.latest()\n"
        "    print(newest.timestamp.tzinfo, newest.created_at.tzinfo, [row.timestamp.tzinfo for row in"
        " db.monitoring.history('drift', 'age')])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], env={**head.environment, "PGTZ": "Asia/Tokyo"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("UTC UTC [datetime.timezone.utc, datetime.timezone.utc]\n", "")
    assert head.value("SELECT max(age(now(), timestamp)) < interval '1 min' FROM monitoring_metrics")
