import copy
import json
import pickle
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import partial
from itertools import count
from types import MethodDescriptorType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mlops_db.errors import InvalidMetricError, InvalidValueError
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.mapped_moment import MappedMoment
from mlops_db.storage.metrics.replacement import COUNT_NEW_ON_CITUS, OF_MAP_INDEX, REMOVE_EARLIER
from mlops_db.storage.monitoring import Monitoring
from support.database import TIMEOUT_S, Database
from support.forks import exit_code, forked

pytestmark = [pytest.mark.slow, pytest.mark.libraries, pytest.mark.full_postgresql]

UTC = timezone.utc
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
MONTH = timedelta(days=31)


def row(value: object = 0.5, **others: Any) -> dict[str, Any]:
    return {"metric_type": "drift", "metric_name": "age", "metric_value": value, **others}


def stored(head: Database) -> list[tuple[Any, ...]]:
    return head.query(
        "SELECT metric_name, metric_value, metadata -> 'map_index' FROM monitoring_metrics ORDER BY 1, 3 NULLS FIRST, 2"
    )


# The moment itself

# Each method that takes no arguments and tells of the moment that it is called on.
READS = sorted(
    name
    for name, member in vars(datetime).items() | vars(date).items()
    if isinstance(member, MethodDescriptorType) and not name.startswith("_") and name not in ("replace", "strftime")
)


def test_the_methods_that_read_are_found() -> None:
    assert {"ctime", "date", "isoformat", "timestamp", "timetuple", "timetz", "utcoffset", "utctimetuple"} <= {*READS}


def pickled(protocol: int, moment: datetime) -> object:
    return pickle.loads(pickle.dumps(moment, protocol))  # noqa: S301


DERIVED: dict[str, Callable[[Any], Any]] = {
    "a time before": lambda moment: moment - timedelta(hours=1),
    "a time after": lambda moment: moment + timedelta(hours=1),
    "the other way round": lambda moment: timedelta(hours=1) + moment,
    "pandas' time": lambda moment: moment - pd.Timedelta("1h"),
    "the same in another zone": lambda moment: moment.astimezone(BERLIN),
    "in the machine's zone": lambda moment: moment.astimezone(),
    "replaced": lambda moment: moment.replace(minute=0, second=0, microsecond=0),
    "replaced by place": lambda moment: moment.replace(2025, 2),
    "another zone": lambda moment: moment.replace(tzinfo=BERLIN, fold=1),
    "copied": copy.copy,
    "copied deeply": lambda moment: copy.deepcopy([moment])[0],
    **{f"pickled by protocol {protocol}": partial(pickled, protocol) for protocol in range(6)},
    "several": lambda moment: (moment.astimezone(BERLIN) - timedelta(days=1)).replace(hour=0).astimezone(UTC),
}


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED)
@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.sampled_from([UTC, BERLIN])),  # noqa: DTZ001
    st.integers(0),
)
def test_what_is_derived_is_of_the_same_run(derive: Callable[[Any], Any], moment: datetime, map_index: int) -> None:
    if moment.day > 28:
        moment = moment.replace(day=28)
    day, time = moment.date(), moment.timetz()
    mapped = MappedMoment(
        *(day.year, day.month, day.day, time.hour, time.minute, time.second, time.microsecond, time.tzinfo),
        fold=time.fold,
        map_index=map_index,
    )
    found = derive(mapped)
    expected = derive(moment)
    assert (type(found), found.map_index) == (MappedMoment, map_index)
    assert (found, found.isoformat(), found.tzinfo, found.fold) == (
        expected,
        expected.isoformat(),
        expected.tzinfo,
        expected.fold,
    )


@given(st.datetimes(timezones=st.sampled_from([UTC, BERLIN])), st.integers(0))
def test_what_airflow_hands_on_is_of_the_same_run(moment: datetime, map_index: int) -> None:
    assume(1 < moment.year < 9999)
    mapped = MappedMoment.of(moment, map_index).astimezone(BERLIN)
    again = MappedMoment.deserialize(json.loads(json.dumps(mapped.serialize())), 0)
    # Of two zones, times about a change of clocks are never equal (PEP 495).
    assert (type(again), again, again.map_index) == (MappedMoment, mapped.astimezone(UTC), map_index)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace() came with Python 3.13")
def test_copy_replace() -> None:
    found = copy.replace(MappedMoment.of(NOON, 3), hour=1)  # type: ignore[attr-defined,unused-ignore]
    assert (found, found.map_index) == (NOON.replace(hour=1), 3)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)), st.integers(0))
def test_it_compares_and_hashes_as_a_datetime(one: datetime, other: datetime, map_index: int) -> None:
    mapped = MappedMoment.of(one, map_index)
    assert mapped == one
    assert hash(mapped) == hash(one)
    assert {one: 1}[mapped] == 1
    assert (mapped < other, other < mapped, mapped == other) == (one < other, other < one, one == other)
    assert (mapped - other, other - mapped) == (one - other, other - one)
    assert mapped - MappedMoment.of(other, map_index + 1) == one - other
    assert (str(mapped), mapped.timestamp(), f"{mapped:%c}") == (str(one), one.timestamp(), f"{one:%c}")
    assert mapped.date() == one.date()
    for method in READS:
        assert getattr(mapped, method)() == getattr(one, method)()


def test_its_run_does_not_change() -> None:
    mapped = MappedMoment.of(NOON, 3)
    with pytest.raises(AttributeError):
        mapped.map_index = 4  # type: ignore[misc]
    assert mapped.map_index == 3


def test_its_repr_creates_an_equal_moment() -> None:
    mapped = MappedMoment.of(NOON, np.int64(3))
    assert repr(mapped) == f"MappedMoment(2026, 3, 1, 12, 0, tzinfo={UTC!r}, map_index=3)"
    again = MappedMoment(2026, 3, 1, 12, 0, tzinfo=UTC, map_index=3)
    assert (again, again.map_index) == (mapped, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MappedMoment.now(UTC),
        lambda: MappedMoment.fromisoformat("2026-03-01T12:00:00+00:00"),
        lambda: MappedMoment.fromtimestamp(0, UTC),
        lambda: MappedMoment.strptime("2026+0000", "%Y%z"),
        lambda: MappedMoment.combine(NOON.date(), NOON.timetz()),
        lambda: MappedMoment(2026, 3, 1, tzinfo=UTC),  # type: ignore[call-arg]
    ],
)
def test_without_a_run_there_is_none(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="map_index"):
        make()


@pytest.mark.parametrize("map_index", [-1, True, None, "3", 1.0, float("nan")])
def test_what_is_no_index_is_refused(map_index: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"^map_index: is ") as caught:
        MappedMoment.of(NOON, map_index)
    assert "whole number from 0" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (NOON.replace(tzinfo=None), "replace(tzinfo=timezone.utc)"),
        ("2026-03-01T12:00:00Z", "datetime.fromisoformat(text)"),
        (None, "aware datetime"),
    ],
)
def test_what_is_no_moment_is_refused(value: Any, hint: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^value: ") as caught:
        MappedMoment.of(value, 0)
    assert hint in caught.value.hint


def test_elsewhere_it_is_a_moment_like_any_other(db: DatabaseManager) -> None:
    mapped = MappedMoment.of(NOON, 3).astimezone(BERLIN)
    db.monitoring.log("drift", "age", 4, timestamp=NOON)
    db.decisions.record("reject", candidate="run", decided_at=mapped)
    assert [decision.decided_at for decision in db.decisions.history()] == [NOON]
    assert db.execute_query("SELECT %s = %s::timestamptz", (mapped, NOON)) == [(True,)]
    (only,) = db.monitoring.history("drift", "age", since=mapped, until=mapped + timedelta(seconds=1))
    assert type(only.timestamp) is datetime


# Reruns


def test_mapped_runs_of_one_moment_keep_each_other_s_rows(head: Database, monitoring: Monitoring) -> None:
    for index in range(4):
        done = monitoring.log_many([row(index), row(10, metric_name="income")], replace=MappedMoment.of(NOON, index))
        assert (done.written, done.replaced) == (2, 0)
    again = monitoring.log_many([row(7, timestamp=NOON)], replace=MappedMoment.of(NOON, 2).astimezone(BERLIN))
    assert (again.written, again.replaced) == (1, 1)
    assert [found for found in stored(head) if found[0] == "age"] == [
        ("age", 0, 0), ("age", 1, 1), ("age", 7, 2), ("age", 3, 3),
    ]  # fmt: skip


def test_a_plain_run_replaces_all_and_a_mapped_one_leaves_what_is_plain(head: Database, monitoring: Monitoring) -> None:
    monitoring.log_many([row(1), row(2, metadata={"map_index": None}), row(3, metadata=[0])], replace=NOON)
    assert monitoring.log_many([row(4)], replace=MappedMoment.of(NOON, 0)).replaced == 0
    assert len(stored(head)) == 4
    assert monitoring.log_many([row(5)], replace=NOON).replaced == 4
    assert stored(head) == [("age", 5, None)]


def test_a_derived_moment_is_another_moment_of_the_same_run(head: Database, monitoring: Monitoring) -> None:
    for index in range(2):
        moment = MappedMoment.of(NOON, index)
        for _ in range(2):
            monitoring.log_many([row(index)], replace=moment)
            monitoring.log_many([row(index)], replace=moment - timedelta(hours=1))
    assert head.query("SELECT timestamp, metric_value FROM monitoring_metrics ORDER BY 1, 2") == [
        (NOON - timedelta(hours=1), 0), (NOON - timedelta(hours=1), 1), (NOON, 0), (NOON, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, {"map_index": 3}),
        ({}, {"map_index": 3}),
        ({"n": 1}, {"n": 1, "map_index": 3}),
        ({"map_index": 3, "n": 1}, {"n": 1, "map_index": 3}),
        ({"map_index": np.int64(3)}, {"map_index": 3}),
    ],
)
def test_metadata_gets_the_index(
    head: Database, monitoring: Monitoring, metadata: Any, expected: dict[str, Any]
) -> None:
    before = copy.deepcopy(metadata)
    tables: list[Any] = [
        [row(metadata=metadata)],
        iter([row() if metadata is None else row(metadata=metadata)]),
        pd.DataFrame([row(metadata=metadata)]),
        pd.DataFrame([row(metadata=float("nan") if metadata is None else metadata)]),
    ]
    if metadata:  # polars has no struct without fields
        tables.append(pl.DataFrame([row(metadata={key: int(value) for key, value in metadata.items()})]))
    for rows in tables:
        assert monitoring.log_many(rows, replace=MappedMoment.of(NOON, 3)).written == 1
        assert head.query("SELECT metadata FROM monitoring_metrics") == [(expected,)]
    assert metadata == before


@pytest.mark.parametrize(
    ("metadata", "key", "reason"),
    [
        ({"map_index": 2}, "metadata.map_index", "is 2, but the row is of map index 3"),
        ({"map_index": "3"}, "metadata.map_index", "is '3', but"),
        ({"map_index": None}, "metadata.map_index", "is None, but"),
        ({"map_index": True}, "metadata.map_index", "is True, but"),
        ([3], "metadata", r"\[3\] is no mapping"),
        ("text", "metadata", "'text' is no mapping"),
        ({1: 2}, "metadata", "has a key that is no text"),
        ({"n": {1}}, "metadata.n", "is of type set"),
    ],
)
def test_metadata_that_cannot_take_the_index_is_refused(
    head: Database, monitoring: Monitoring, metadata: Any, key: str, reason: str
) -> None:
    rows = [row(1), row(2, metadata=metadata)]
    moment = MappedMoment.of(NOON, 3)
    for given_ in (rows, pd.DataFrame(rows)):
        with pytest.raises(InvalidMetricError, match=f"^row 1: {key}: {reason}") as caught:
            monitoring.log_many(given_, replace=moment)
        assert (caught.value.row, caught.value.key) == (1, key)
    assert stored(head) == []
    done = monitoring.log_many(rows, replace=moment, on_invalid="skip")
    assert [(skipped.row, skipped.key) for skipped in done.skipped] == [(1, key)]
    assert stored(head) == [("age", 1, 3)]


def test_a_rerun_finds_every_row_about_its_moment(head: Database, monitoring: Monitoring) -> None:
    for index in (3, 4):
        mapped = MappedMoment.of(NOON, index).astimezone(BERLIN)
        monitoring.log("drift", "age", 1, timestamp=mapped, metadata={"map_index": index, "n": 1})
        monitoring.log("drift", "age", 1, timestamp=mapped)
        monitoring.log_failure("drift", "age", "no values", timestamp=mapped)
        monitoring.log_many([row(1), row(1, timestamp=mapped), row(1), row(1, timestamp=NOON)])
    counts = """
        SELECT metadata -> 'map_index', timestamp = %s, count(*) FROM monitoring_metrics
         GROUP BY 1, 2 ORDER BY 2 DESC, 1 NULLS LAST
    """
    assert head.query(counts, [NOON]) == [(3, True, 4), (4, True, 4), (None, True, 2), (None, False, 4)]
    again = MappedMoment.of(NOON, 3)
    assert monitoring.log_many([row(2), row(2, timestamp=again), row(2, timestamp=NOON)], replace=again).replaced == 4
    assert head.query(counts, [NOON])[0] == (3, True, 3)
    # A run that is not mapped may collect the rows of those that are.
    assert monitoring.log_many([row(5), row(6, timestamp=again)], replace=NOON).replaced == 9
    assert stored(head)[:2] == [("age", 1, None), ("age", 1, None)]
    assert stored(head)[-2:] == [("age", 5, None), ("age", 6, 3)]


def test_a_value_that_is_of_another_run_is_refused(head: Database, monitoring: Monitoring) -> None:
    mapped = MappedMoment.of(NOON, 3)
    for refused in ([3], {"map_index": 2}):
        with pytest.raises(InvalidValueError, match=r"^metadata"):
            monitoring.log("drift", "age", 1, timestamp=mapped, metadata=refused)
    with pytest.raises(InvalidMetricError, match=r"^row 1: timestamp: is of map index 2, .* map index 3") as caught:
        monitoring.log_many([row(), row(timestamp=MappedMoment.of(NOON, 2))], replace=mapped)
    assert "leave the timestamps out" in caught.value.hint
    assert stored(head) == []


@pytest.mark.parametrize("refused", [7, None, {}, {"metric_type": "drift", "metric_name": "age"}, row(1, colour=2)])
def test_rows_that_are_none_are_refused_as_ever(monitoring: Monitoring, refused: Any) -> None:
    with pytest.raises(InvalidMetricError) as plain:
        monitoring.log_many([refused], replace=NOON)
    with pytest.raises(InvalidMetricError) as mapped:
        monitoring.log_many([refused], replace=MappedMoment.of(NOON, 3))
    assert str(mapped.value) == str(plain.value)


# Reading


def test_how_several_rows_of_one_moment_are_read(head: Database, monitoring: Monitoring) -> None:
    monitoring.expect("drift", "age", interval=timedelta(hours=1))
    for hour in (0, 2):
        for index in (1, 0, 2):
            moment = MappedMoment.of(NOON + timedelta(hours=hour), index)
            monitoring.log_many([row(10 * hour + index)], replace=moment)

    (latest,) = monitoring.latest()
    assert (latest.metric_value, latest.previous_value, latest.metadata) == (22, 20, {"map_index": 2})
    assert head.query("SELECT metric_value FROM v_recent_monitoring") == [(22,)]
    assert [metric.metric_value for metric in monitoring.history("drift", "age")] == [22, 20, 21, 2, 0, 1]
    assert list(monitoring.history_frame("drift", "age")["metric_value"]) == [1, 0, 2, 21, 20, 22]
    assert list(monitoring.frame("drift", model_name="default")["metric_value"]) == [1, 0, 2, 21, 20, 22]
    assert list(monitoring.frame("drift", model_name="default", layout="wide")["age"]) == [2, 22]
    assert list(monitoring.frame("drift", model_name="default", every="1h", layout="wide")["count"]["age"]) == [3, 3]
    (gap,) = monitoring.gaps(since=NOON, until=NOON + timedelta(hours=3))
    assert (gap.since, gap.until, gap.missing) == (NOON, NOON + timedelta(hours=2), 1)


# Together


@dataclass
class Run:
    """A run of log_many, and those that begin and end while its rows are read."""

    map_index: int | None
    hour: int
    names: list[str]
    inside: list["Run"]


RUNS = st.recursive(
    st.builds(
        Run,
        st.sampled_from([None, 0, 1, 2]),
        st.integers(0, 1),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
        st.just([]),
    ),
    lambda inner: st.builds(
        Run,
        st.sampled_from([None, 0, 1, 2]),
        st.integers(0, 1),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(RUNS, min_size=1, max_size=5))
def test_the_run_that_ends_last_has_replaced_what_is_its_own(
    head: Database, monitoring: Monitoring, runs: list[Run]
) -> None:
    head.query("TRUNCATE monitoring_metrics")
    expected: set[tuple[int, str, int | None, int]] = set()
    numbers = count()

    def store(run: Run) -> None:
        written = [(run.hour, name, run.map_index, next(numbers)) for name in run.names]

        def rows() -> Iterator[dict[str, Any]]:
            for place, (_, name, _, number) in enumerate(written):
                yield row(number, metric_name=name)
                if place == 0:
                    for inner in run.inside:
                        store(inner)

        moment = NOON + timedelta(hours=run.hour)
        replace = moment if run.map_index is None else MappedMoment.of(moment, run.map_index)
        done = monitoring.log_many(rows(), replace=replace)
        removed = {
            found
            for found in expected
            if found[0] == run.hour and found[1] in run.names and run.map_index in (None, found[2])
        }
        assert done.replaced == len(removed)
        expected.difference_update(removed)
        expected.update(written)

    for run in runs:
        store(run)
    assert expected == {
        ((timestamp - NOON) // timedelta(hours=1), name, (metadata or {}).get("map_index"), int(value))
        for timestamp, name, metadata, value in head.query(
            "SELECT timestamp, metric_name, metadata, metric_value FROM monitoring_metrics"
        )
    }


@pytest.mark.plain_postgresql(reason="Citus takes no triggers of others on a distributed table")
@pytest.mark.parametrize("indices", [(0, 0), (0, None)])
def test_of_two_runs_at_once_the_one_that_ends_last_sees_the_other(
    head: Database, monitoring: Monitoring, indices: tuple[int | None, int | None]
) -> None:
    # Between the end of a run's work and its commit there is time for the other one's.
    head.query("""
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
        CREATE TRIGGER dawdle AFTER DELETE ON monitoring_metrics FOR EACH STATEMENT EXECUTE FUNCTION dawdle()
    """)
    monitoring.log_many([row()])  # the series is known, so that nobody waits for its being made known
    both = threading.Barrier(2)

    ended: list[tuple[int | None, int]] = []

    def store(map_index: int | None) -> None:
        def rows() -> Iterator[dict[str, Any]]:
            yield row()
            both.wait(TIMEOUT_S)

        replace = NOON if map_index is None else MappedMoment.of(NOON, map_index)
        ended.append((map_index, monitoring.log_many(rows(), replace=replace).replaced))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(store, indices))
    first, last = ended
    assert first[1] == 0
    # A mapped run leaves the row of a plain one.
    assert last[1] == (0 if first[0] is None else 1)
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 3 - last[1]


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_runs_of_many_processes_at_once_lose_nothing(head: Database, isolation: str) -> None:
    head.query(f"""ALTER DATABASE "{head.settings.database}" SET default_transaction_isolation = '{isolation}'""")
    names = [f"m{n}" for n in range(100)]

    def work(map_index: int | None, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        replace = NOON if map_index is None else MappedMoment.of(NOON, map_index)
        with DatabaseManager(head.settings) as db:
            for turn in range(5):
                series = chance.sample(names, len(names))
                db.monitoring.log_many([row(turn, metric_name=name) for name in series], replace=replace)

    def together(*indices: int | None) -> None:
        children = [forked(lambda index=index, seed=seed: work(index, seed)) for seed, index in enumerate(indices)]
        assert [exit_code(child) for child in children] == [0] * len(indices)

    together(0, 1, 2, 2)
    assert head.query("SELECT count(*), count(DISTINCT metric_name) FROM monitoring_metrics") == [(300, 100)]
    together(0, 1, None, 2)
    assert head.query("SELECT count(*), min(metric_value) FROM monitoring_metrics WHERE metadata IS NULL") == [(100, 4)]
    assert head.query("SELECT max(n) FROM (SELECT count(*) FROM monitoring_metrics GROUP BY metric_name) AS s (n)") <= [
        (4,)
    ]


@pytest.mark.plain_postgresql(reason="EXPLAIN shows the tasks of Citus, not the plan of a month")
def test_what_a_run_wrote_is_found_by_the_key_of_its_month(head: Database, monitoring: Monitoring) -> None:
    now = datetime.now(UTC)
    for month in range(3):
        rows = [row(n, metric_name=f"m{n}", timestamp=now - month * MONTH) for n in range(500)]
        monitoring.log_many(rows)
    head.query("ANALYZE monitoring_metrics")
    given = {
        "models": ["default"], "types": ["drift"], "names": ["m1"], "nodes": ["default"], "at": now, "map_index": 3,
        "written": 1, "now": now, "first_id": 0,
    }  # fmt: skip
    month = f"monitoring_metrics_{now:%Y_%m}"
    for statement in (COUNT_NEW_ON_CITUS, REMOVE_EARLIER):
        plan = "\n".join(line for (line,) in head.query(f"EXPLAIN {statement}{OF_MAP_INDEX}", given))
        assert f"Index Scan using {month}_pkey on {month}" in plan
        assert plan.count("monitoring_metrics_") == plan.count(month)
