import math
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import set_wait_callback
from psycopg2.extras import wait_select

from mlops_db.errors import InvalidValueError, MissingExtraError, WaitCallbackError
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.monitoring import Monitoring
from support.database import Database

pytestmark = pytest.mark.libraries

UTC = timezone.utc
DAY = datetime(2026, 3, 1, tzinfo=UTC)  # a Sunday
MONDAY = datetime(2000, 1, 3, tzinfo=UTC)
VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.7e308, -1.7e308, 5e-324])
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2026, 1, 1), timezones=st.just(UTC)) | st.integers(0, 40).map(  # noqa: DTZ001
    lambda hours: DAY + timedelta(hours=hours)
)
ROWS = st.lists(st.tuples(st.sampled_from("ab"), MOMENTS, VALUES), max_size=30)
WIDTHS = {
    "500ms": timedelta(milliseconds=500), "90s": timedelta(seconds=90), "15min": timedelta(minutes=15),
    "1h": timedelta(hours=1), "1d": timedelta(days=1), "1w": timedelta(weeks=1), "400d": timedelta(days=400),
}  # fmt: skip
SERIES = [("anomalies", "drift", "age"), ("churn", "drift", "age"), ("churn", "quality", "age")]
each_example = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def three(monitoring: Monitoring) -> Monitoring:
    """Three series, with two rows at one moment in the first, and a failure in the last."""
    monitoring.log_many(
        {"model_name": model, "metric_type": kind, "metric_name": name, "metric_value": value,
         "timestamp": DAY + timedelta(hours=hours)}
        for (model, kind, name), values in zip(SERIES, ([(1, 0), (2, 0), (3, 30)], [(4, 30)], [(None, 1)]), strict=True)
        for value, hours in values
    )  # fmt: skip
    monitoring.expect("drift", "income", interval=timedelta(days=1), model_name="churn")
    return monitoring


def hours(*ages: float) -> list[pd.Timestamp]:
    return [pd.Timestamp(DAY + timedelta(hours=age)) for age in ages]


def test_a_series_as_a_frame(monitoring: Monitoring) -> None:
    monitoring.log("drift", "age", 0.1, timestamp=DAY, metadata={"n": 1})
    monitoring.log_failure("drift", "age", "no rows", timestamp=DAY + timedelta(hours=1))
    monitoring.log("drift", "age", 3, timestamp=DAY + timedelta(hours=2))
    frame = monitoring.history_frame("drift", "age", limit=3)
    assert list(frame.columns) == ["metric_value"]
    assert list(frame.index) == hours(0, 1, 2)
    assert (frame.index.name, str(frame.index.dtype)) == ("timestamp", "datetime64[us, UTC]")
    assert frame["metric_value"].isna().tolist() == [False, True, False]
    with_metadata = monitoring.history_frame("drift", "age", metadata=True)
    assert with_metadata.pop("metadata").tolist() == [{"n": 1}, {"error": "no rows"}, None]
    pd.testing.assert_frame_equal(with_metadata, frame)
    for metadata in (False, True):
        newest = monitoring.history_frame("drift", "age", limit=2, metadata=metadata)
        assert list(newest.index) == hours(1, 2)
        within = monitoring.history_frame("drift", "age", since=DAY, until=hours(2)[0], metadata=metadata)
        assert list(within.index) == hours(0, 1)
        empty = monitoring.history_frame("drift", "nothing", metadata=metadata)
        assert (len(empty), empty["metric_value"].dtype, str(empty.index.dtype)) == (
            0,
            "float64",
            "datetime64[us, UTC]",
        )


@each_example
@given(ROWS)
def test_a_frame_has_what_history_has(head: Database, rows: list[tuple[str, datetime, float | None]]) -> None:
    with DatabaseManager(head.settings) as db:
        stored(head, db.monitoring, rows)
        for name in "ab":
            history = list(db.monitoring.history("drift", name))[::-1]
            frame = db.monitoring.history_frame("drift", name)
            assert [moment.to_pydatetime() for moment in frame.index] == [row.timestamp for row in history]
            assert none_of_nan(frame["metric_value"]) == [row.metric_value for row in history]
            assert history == sorted(history, key=lambda row: (row.timestamp, row.id))


@each_example
@given(ROWS, st.sampled_from(sorted(WIDTHS)))
def test_buckets_are_counted_from_a_monday_and_lose_nothing(
    head: Database, rows: list[tuple[str, datetime, float | None]], every: str
) -> None:
    with DatabaseManager(head.settings) as db:
        stored(head, db.monitoring, rows)
        together = db.monitoring.frame(every=every)
        for name in "ab":
            one = db.monitoring.history_frame("drift", name, every=every)
            pd.testing.assert_frame_equal(together[together["metric_name"] == name].iloc[:, 3:], one)
            width = WIDTHS[every]
            buckets: dict[datetime, list[float | None]] = {}
            for _, moment, value in sorted((row for row in rows if row[0] == name), key=lambda row: row[1]):
                buckets.setdefault(MONDAY + (moment - MONDAY) // width * width, []).append(value)
            assert [moment.to_pydatetime() for moment in one.index] == list(buckets)
            for found, values in zip(one.itertuples(), buckets.values(), strict=True):
                there = [value for value in values if value is not None]
                assert (found.count, found.failed) == (len(there), len(values) - len(there))
                if there:
                    assert (found.min, found.max) == (min(there), max(there))
                    mean = math.fsum(value / len(there) for value in there)
                    assert found.mean == pytest.approx(mean, abs=1e-12 * max(map(abs, there)) + 1e-300)
                else:
                    assert math.isnan(found.min + found.max + found.mean)


@pytest.mark.parametrize(
    ("every", "first"),
    [
        ("1d", DAY),
        ("1D", DAY),
        (timedelta(days=1), DAY),
        ("1w", DAY - timedelta(days=6)),
        ("7 d", DAY - timedelta(days=6)),
        ("1h", DAY + timedelta(hours=13)),
        ("15min", DAY + timedelta(hours=13, minutes=45)),
    ],
)
def test_days_begin_at_midnight_and_weeks_on_monday(
    monitoring: Monitoring, every: str | timedelta, first: datetime
) -> None:
    moment = DAY + timedelta(hours=13, minutes=59, seconds=59, microseconds=999_999)
    monitoring.log("drift", "age", 1, timestamp=moment)
    frame = monitoring.history_frame("drift", "age", every=every)
    assert list(frame.index) == [pd.Timestamp(first)]
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "min": "float64", "mean": "float64", "max": "float64", "count": "int64", "failed": "int64",
    }  # fmt: skip


def test_the_newest_buckets_are_whole(monitoring: Monitoring) -> None:
    for age in range(6):
        monitoring.log("drift", "age", age, timestamp=DAY + timedelta(hours=12 * age))
    frame = monitoring.history_frame("drift", "age", every="1d", limit=2)
    assert frame["min"].tolist() == [2, 4]
    assert frame["count"].tolist() == [2, 2]


def test_several_series_in_one_long_frame(three: Monitoring) -> None:
    frame = three.frame()
    assert list(frame.columns) == ["model_name", "metric_type", "metric_name", "metric_value"]
    assert [str(frame[name].dtype) for name in frame.columns] == ["category"] * 3 + ["float64"]
    assert list(zip(*(frame[name] for name in frame.columns[:3]), strict=True)) == [
        SERIES[0], SERIES[0], SERIES[0], SERIES[1], SERIES[2],
    ]  # fmt: skip
    assert list(frame.index) == hours(0, 0, 30, 30, 1)
    assert none_of_nan(frame["metric_value"]) == [1, 2, 3, 4, None]
    assert three.frame(limit=1)["metric_value"].tolist()[:2] == [3, 4]
    assert list(three.frame(since=hours(1)[0], until=hours(30)[0]).index) == hours(1)
    for question, values in (
        ({"metric_type": "quality"}, [None]),
        ({"metric_type": ["quality", "drift"], "model_name": ["churn", "nobody"]}, [4, None]),
        ({"metric_name": iter(["age"]), "model_name": "anomalies"}, [1, 2, 3]),
        ({"metric_name": []}, []),
        ({"metric_name": "age' OR true --"}, []),
    ):
        assert none_of_nan(three.frame(**question)["metric_value"]) == values


def test_several_series_in_one_wide_frame(three: Monitoring) -> None:
    frame = three.frame(layout="wide")
    assert frame.columns.names == ["model_name", "metric_type", "metric_name"]
    assert list(frame.columns) == [*SERIES[:2], ("churn", "drift", "income"), SERIES[2]]
    assert list(frame.index) == hours(0, 1, 30)
    assert none_of_nan(frame["anomalies", "drift", "age"]) == [2, None, 3]
    assert frame["churn", "drift", "income"].isna().all()
    by_model = three.frame("drift", "age", layout="wide")
    assert (by_model.columns.name, list(by_model.columns)) == ("model_name", ["anomalies", "churn"])
    assert by_model.loc[hours(30)[0]].tolist() == [3, 4]
    one = three.frame("drift", "age", model_name="churn", layout="wide")
    assert (one.columns.name, list(one.columns)) == ("metric_name", ["age"])
    nothing = three.frame("drift", model_name="nobody", layout="wide")
    assert (nothing.shape, nothing.columns.name, str(nothing.index.dtype)) == (
        (0, 0), "metric_name", "datetime64[us, UTC]"
    )  # fmt: skip


def test_several_series_in_buckets(three: Monitoring) -> None:
    long = three.frame(every="1d")
    assert list(long.columns) == ["model_name", "metric_type", "metric_name", "min", "mean", "max", "count", "failed"]
    assert list(long.index) == hours(0, 24, 24, 0)
    assert none_of_nan(long["mean"]) == [1.5, 3, 4, None]
    wide = three.frame(model_name="churn", every="1d", layout="wide")
    assert wide.columns.names == ["statistic", "metric_type", "metric_name"]
    assert list(wide["mean"].columns) == [("drift", "age"), ("drift", "income"), ("quality", "age")]
    assert none_of_nan(wide["mean"]["drift", "age"]) == [None, 4]
    assert wide["count"]["drift", "age"].tolist() == [0, 1]
    assert wide["failed"]["quality", "age"].tolist() == [1, 0]
    assert wide["failed"].dtypes.unique().tolist() == ["int64"]
    assert three.frame(model_name="nobody", every="1d", layout="wide").empty


@pytest.mark.parametrize(
    ("question", "key"),
    [
        *(({"every": every}, "every") for every in (
            "", "1", "d", "1m", "1month", "1MS", "1y", "0d", "-1d", "1.5h", "\uff11d", "9999999d", "10001d", 86400,
            timedelta(0), timedelta(days=-1), timedelta.max, pd.NaT,
        )),
        ({"limit": -1}, "limit"),
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001
        ({"until": "2026-01-01"}, "until"),
        ({"metric_name": "a\0"}, "metric_name"),
        ({"model_name": ""}, "model_name"),
    ],
)  # fmt: skip
def test_what_no_frame_can_answer(question: dict[str, Any], key: str) -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    for read in (nowhere.history_frame, nowhere.frame):
        with pytest.raises(InvalidValueError, match=f"^{key}: "):
            read(**{"metric_type": "drift", "metric_name": "age", **question})


@pytest.mark.parametrize(
    ("question", "key"),
    [
        ({"layout": "tall"}, "layout"),
        ({"metric_type": 7}, "metric_type"),
        ({"metric_name": ["age", None]}, "metric_name"),
        ({"model_name": b"churn"}, "model_name"),
    ],
)
def test_what_several_series_cannot_be(question: dict[str, Any], key: str) -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError, match=f"^{key}: "):
        nowhere.frame(**question)


def test_buckets_have_no_metadata() -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError, match=r"^metadata: "):
        nowhere.history_frame("drift", "age", metadata=True, every="1d")


def test_a_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    for read in (nowhere.history_frame, nowhere.frame):
        with pytest.raises(MissingExtraError, match="pandas is not installed") as caught:
            read("drift", "age")
        assert "mlops-db[pandas]" in caught.value.hint


def test_a_process_that_waits_in_a_way_of_its_own(three: Monitoring) -> None:
    set_wait_callback(wait_select)
    try:
        for read in (three.history_frame, three.frame):
            with pytest.raises(WaitCallbackError):
                read("drift", "age")
        assert len(three.history_frame("drift", "age", model_name="anomalies", metadata=True)) == 3
    finally:
        set_wait_callback(None)


def stored(head: Database, monitoring: Monitoring, rows: list[tuple[str, datetime, float | None]]) -> None:
    head.query("TRUNCATE monitoring_metrics")
    monitoring.log_many(
        {"metric_type": "drift", "metric_name": name, "timestamp": moment, "metric_value": value}
        for name, moment, value in rows
    )


def none_of_nan(values: "pd.Series[float]") -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]
