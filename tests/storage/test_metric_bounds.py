"""`log_many(bounds=)`: what is normal takes effect with the rows, or not at all."""

import math
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace as changed
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db import DatabaseManager
from mlops_db.errors import ContentionError, InvalidMetricError, InvalidValueError, UnknownSeriesError
from mlops_db.settings import Settings
from mlops_db.storage.metrics.bounds import Bounds
from mlops_db.storage.monitoring import Monitoring
from support.database import TIMEOUT_S, Database
from support.sessions import another_session, wait_until

pytestmark = pytest.mark.libraries

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
TAKE_TURN = f"SELECT pg_advisory_xact_lock(hashtextextended('mlops_db.replace {NOON.isoformat()}', 0))"
Range = tuple[float | None, float | None]


@pytest.fixture
def nowhere() -> Monitoring:
    """Whoever asks it for a connection gets another error than the one that is expected."""
    return Monitoring(DatabaseManager(Settings(host="/nonexistent")))


def row(name: str = "psi", value: float = 0.1, **others: Any) -> dict[str, Any]:
    return {"metric_type": "drift", "metric_name": name, "metric_value": value, **others}


def bound(name: str = "psi", lower: Any = None, upper: Any = None, **others: Any) -> Bounds:
    return Bounds("drift", name, lower, upper, **others)


def ranges(monitoring: Monitoring) -> dict[str, Range]:
    return {series.metric_name: (series.lower_threshold, series.upper_threshold) for series in monitoring.series()}


# What is stored


def test_both_bounds_of_a_series_are_replaced_and_its_interval_stays(monitoring: Monitoring) -> None:
    monitoring.expect("drift", "psi", interval=HOUR, lower=0, upper=1)
    monitoring.expect("drift", "ks", interval=HOUR, lower=0, upper=1)
    monitoring.expect("drift", "psi", lower=7, model_name="churn")

    monitoring.log_many([row()], bounds=[bound(upper=0.2)])

    assert [
        (s.model_name, s.metric_name, s.expected_interval, s.lower_threshold, s.upper_threshold)
        for s in monitoring.series()
    ] == [
        ("churn", "psi", None, 7, None),
        ("default", "ks", HOUR, 0, 1),
        ("default", "psi", HOUR, None, 0.2),
    ]
    monitoring.log_many([row()], bounds=[bound()])
    assert ranges(monitoring)["psi"] == (None, None)


@pytest.mark.parametrize("rows", [[], [row("other")]])
def test_a_series_without_rows_is_registered_as_expect_does(monitoring: Monitoring, rows: list[Any]) -> None:
    monitoring.log_many(rows, bounds=[bound(lower=0, upper=0.2)])
    (state,) = (state for state in monitoring.latest() if state.metric_name == "psi")
    assert (state.health, state.stale, state.lower_threshold, state.upper_threshold) == ("missing", False, 0, 0.2)


def test_without_bounds_those_that_are_there_stay(monitoring: Monitoring) -> None:
    monitoring.log_many([row()], bounds=[bound(lower=0, upper=0.2)])
    monitoring.log_many([row()])
    monitoring.log_many([row()], bounds=[])
    assert ranges(monitoring) == {"psi": (0, 0.2)}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(pd.DataFrame([row()], index=pd.DatetimeIndex([NOON])), id="pandas"),
        pytest.param(pl.DataFrame([row()]), id="arrow"),
        pytest.param(iter([row()]), id="generator"),
    ],
)
@pytest.mark.parametrize("make", [list, tuple, set, iter])
def test_bounds_with_every_form_of_rows(head: Database, rows: Any, make: Any) -> None:
    with DatabaseManager(head.settings) as db:
        db.monitoring.log_many(rows, replace=NOON, bounds=make([bound(upper=0.05), bound("ks", lower=0)]))
        assert ranges(db.monitoring) == {"psi": (None, 0.05), "ks": (0, None)}
        assert {state.health for state in db.monitoring.latest()} <= {"high", "missing"}


@pytest.mark.parametrize("at", [0.1, -0.1, 0.0, 1e300, 5e-324, 3.0])
def test_the_bound_itself_is_normal_and_the_next_double_is_not(monitoring: Monitoring, at: float) -> None:
    below, above = math.nextafter(at, -math.inf), math.nextafter(at, math.inf)
    for value, health in ((at, "ok"), (below, "low"), (above, "high")):
        monitoring.log_many([row(value=value)], bounds=[bound(lower=at, upper=at)])
        (state,) = monitoring.latest()
        assert (state.health, state.metric_value) == (health, value)
    for lower, upper, health in ((above, None, "low"), (None, below, "high"), (at, None, "ok"), (None, at, "ok")):
        monitoring.log_many([row(value=at)], bounds=[bound(lower=lower, upper=upper)])
        assert monitoring.latest()[0].health == health


def test_many_bounds_are_one_statement(head: Database, monitoring: Monitoring) -> None:
    names = [f"m{n}" for n in range(3000)]
    monitoring.log_many([row(name) for name in names[:1500]])
    monitoring.log_many([], bounds=[bound(name, lower=-1, upper=1) for name in names])
    assert set(ranges(monitoring).values()) == {(-1, 1)}
    assert head.value("SELECT count(DISTINCT xmin::text || cmin::text) FROM mlops_internal.metric_series") == 1


def test_bounds_that_hold_already_are_not_written_again(head: Database, monitoring: Monitoring) -> None:
    entry = "SELECT ctid FROM mlops_internal.metric_series"
    monitoring.log_many([row()], bounds=[bound(upper=0.2)])
    before = head.value(entry)
    monitoring.log_many([row()], bounds=[bound(upper=0.2)])
    assert head.value(entry) == before
    monitoring.log_many([row()], bounds=[bound(lower=0, upper=0.2)])
    assert head.value(entry) != before


numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=255).filter(
            str.strip
        ),
        st.tuples(numbers, numbers).filter(lambda both: None in both or both[0] <= both[1]),  # type: ignore[operator]
        max_size=5,
    ),
)
def test_every_finite_number_comes_back_exactly(monitoring: Monitoring, wanted: dict[str, Range]) -> None:
    monitoring.log_many([], bounds=(bound(name, *both) for name, both in wanted.items()))
    stored = ranges(monitoring)
    assert {name: stored[name] for name in wanted} == wanted


def test_numbers_of_other_libraries_are_what_they_hold(monitoring: Monitoring) -> None:
    monitoring.log_many(
        [], bounds=[bound(np.str_("psi"), np.float32(0.5), Decimal("0.75")), bound("psi", 0.5, np.array(0.75)[()])]
    )
    assert ranges(monitoring) == {"psi": (0.5, 0.75)}


# All or nothing


def failing() -> Iterator[dict[str, Any]]:
    yield from (row(value=2) for _ in range(5000))
    raise KeyError("source")


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([row(), row(value=math.nan)], InvalidMetricError),
        (failing(), KeyError),
        ([row(timestamp=NOON + timedelta(days=40_000))], InvalidMetricError),
    ],
)
def test_where_the_rows_fail_the_bounds_are_as_before(
    monitoring: Monitoring, rows: Iterable[Any], error: type[Exception]
) -> None:
    monitoring.expect("drift", "psi", interval=HOUR, lower=0, upper=1)
    before = monitoring.series()
    with pytest.raises(error):
        monitoring.log_many(rows, bounds=[bound(upper=5), bound("new", upper=5)])
    assert monitoring.series() == before


def test_if_the_turn_does_not_come_no_rows_and_no_bounds_are_stored(head: Database, monitoring: Monitoring) -> None:
    monitoring.expect("drift", "psi", lower=0)
    with (
        DatabaseManager(changed(head.settings, lock_wait=100)) as db,
        another_session(head, "a job", TAKE_TURN),
        pytest.raises(ContentionError),
    ):
        db.monitoring.log_many([row()], replace=NOON, bounds=[bound(upper=5)])
    assert ranges(monitoring) == {"psi": (0, None)}
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 0


def test_where_the_bounds_cannot_be_stored_the_rows_are_not_either(head: Database, monitoring: Monitoring) -> None:
    monitoring.log_many([row()])
    with DatabaseManager(changed(head.settings, parameters={"options": "-c lock_timeout=200ms"})) as db:
        entry = "SELECT 1 FROM mlops_internal.metric_series WHERE model_name = 'default' FOR UPDATE"
        with another_session(head, "a session", entry), pytest.raises(ContentionError):
            db.monitoring.log_many([row(value=9)], bounds=[bound(upper=5)])
    assert ranges(monitoring) == {"psi": (None, None)}
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 1


def test_rows_that_are_left_out_leave_the_bounds_in(monitoring: Monitoring) -> None:
    result = monitoring.log_many([row(value=math.nan)], on_invalid="skip", bounds=[bound(upper=0.2)])
    assert (result.written, result.skipped_count) == (0, 1)
    assert ranges(monitoring) == {"psi": (None, 0.2)}


def test_a_rerun_replaces_the_bounds_as_well(monitoring: Monitoring) -> None:
    monitoring.log_many([row()], replace=NOON, bounds=[bound(upper=0.2)])
    assert monitoring.log_many([row()], replace=NOON, bounds=[bound(upper=0.05)]).replaced == 1
    (state,) = monitoring.latest()
    assert (state.health, state.upper_threshold) == ("high", 0.05)


# What is refused


class Unreadable:
    def __iter__(self) -> Iterator[Bounds]:
        yield bound()
        raise RuntimeError("gone")


@pytest.mark.parametrize(
    ("bounds", "key", "reason"),
    [
        ("drift", "bounds", "'drift' is no list of Bounds"),
        (b"drift", "bounds", "no list of Bounds"),
        ({"psi": (0, 1)}, "bounds", "no list of Bounds"),
        ({}, "bounds", "no list of Bounds"),
        (None, "bounds", "None is no list of Bounds"),
        (bound(), "bounds", "is no list of Bounds"),
        (Bounds, "bounds", "is no list of Bounds"),
        (np.array(1), "bounds", "cannot be read: TypeError"),
        (Unreadable(), "bounds", r"cannot be read: RuntimeError\('gone'\)"),
        ([bound(), ("drift", "psi", 0, 1)], "bounds[1]", "is no Bounds"),
        ([{"metric_type": "drift", "metric_name": "psi"}], "bounds[0]", "is no Bounds"),
        ([Bounds], "bounds[0]", "is no Bounds"),
        ([None], "bounds[0]", "None is no Bounds"),
        (pd.DataFrame({"metric_type": ["drift"]}), "bounds[0]", "'metric_type' is no Bounds"),
        ([bound("")], "bounds[0].metric_name", "is blank"),
        ([bound("x" * 256)], "bounds[0].metric_name", "256 characters"),
        ([bound(7)], "bounds[0].metric_name", "7 is not text"),  # type: ignore[arg-type]
        ([bound(model_name="a\0")], "bounds[0].model_name", "NUL"),
        ([Bounds("x" * 101, "psi")], "bounds[0].metric_type", "101 characters"),
        ([bound(), bound("ks", math.nan)], "bounds[1].lower", "nan"),
        ([bound(upper=math.inf)], "bounds[0].upper", "inf"),
        ([bound(upper="1")], "bounds[0].upper", "'1'"),
        ([bound(lower=10**400)], "bounds[0].lower", "1000000"),
        ([bound(lower=0.2, upper=0.1)], "bounds[0].lower", "0.2 is above upper, 0.1"),
        ([bound(lower=1), bound("ks"), bound(lower=2)], "bounds[2]", r"differs from bounds\[0\]"),
        ([bound(lower=1), bound(upper=1)], "bounds[1]", "differs"),
    ],
)
def test_what_are_no_bounds_is_refused_by_name(nowhere: Monitoring, bounds: Any, key: str, reason: str) -> None:
    for on_invalid in ("raise", "skip"):
        with pytest.raises(InvalidValueError, match=reason) as refused:
            nowhere.log_many([], bounds=bounds, on_invalid=on_invalid)  # type: ignore[arg-type]
        assert refused.value.key == key
        assert refused.value.hint


def test_the_same_bounds_twice_are_one_and_other_series_are_others(monitoring: Monitoring) -> None:
    monitoring.log_many([], bounds=[bound(lower=1), bound(lower=np.int64(1)), bound(lower=2, model_name="churn")])
    assert [(s.model_name, s.lower_threshold) for s in monitoring.series()] == [("churn", 2), ("default", 1)]


def test_an_interrupt_while_they_are_read_stays_one(nowhere: Monitoring) -> None:
    def interrupted() -> Iterator[Bounds]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        nowhere.log_many([], bounds=interrupted())


# At once


def test_jobs_that_say_bounds_forwards_and_backwards_do_not_deadlock(head: Database) -> None:
    names = [f"m{n}" for n in range(200)]
    orders = (names, names[::-1], names[100:] + names[:100])
    start = threading.Barrier(len(orders))

    def log(number: int, order: list[str]) -> None:
        for turn in range(8):
            start.wait(TIMEOUT_S)
            # Series that are new in each turn: the trigger registers them, and everybody wants the same.
            rows = [row(f"{name}.{turn}", number) for name in order]
            bounds = [bound(f"{name}.{turn}", upper=number) for name in order]
            db.monitoring.log_many(rows, replace=NOON if number else None, bounds=bounds)

    with DatabaseManager(head.settings) as db, ThreadPoolExecutor(len(orders)) as threads:
        for job in [threads.submit(log, number, order) for number, order in enumerate(orders)]:
            job.result()
        assert len(ranges(db.monitoring)) == 8 * len(names)
    for turn in range(8):
        uppers = head.query(
            "SELECT count(DISTINCT upper_threshold) FROM mlops_internal.metric_series WHERE metric_name LIKE %s",
            [f"%.{turn}"],
        )
        assert uppers == [(1,)]


def test_of_two_reruns_at_once_values_and_bounds_are_of_the_same(head: Database) -> None:
    start = threading.Barrier(2)

    def log(number: int) -> None:
        for _ in range(20):
            start.wait(TIMEOUT_S)
            db.monitoring.log_many(
                [row(value=number), row("ks", number)],
                replace=NOON,
                bounds=[bound("ks", upper=number), bound(upper=number)],
            )
            start.wait(TIMEOUT_S)
            remaining = {(state.metric_value, state.upper_threshold) for state in db.monitoring.latest()}
            assert remaining in ({(1, 1)}, {(2, 2)})
            start.wait(TIMEOUT_S)

    with DatabaseManager(head.settings) as db, ThreadPoolExecutor(2) as threads:
        for job in [threads.submit(log, number) for number in (1, 2)]:
            job.result()


def test_who_waits_for_a_series_does_not_have_the_turn_yet(head: Database, monitoring: Monitoring) -> None:
    # Of one moment: one has registered a series, and goes on to its turn while the other waits for that series.
    insert = "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'ks', 1)"
    with another_session(head, "a job", insert) as other, ThreadPoolExecutor(1) as threads:
        job = threads.submit(monitoring.log_many, [row()], replace=NOON, bounds=[bound("ks", upper=3), bound(upper=1)])
        wait_until(lambda: job.done() or head.value(WAITING), "it to wait")
        other.execute(TAKE_TURN)
        other.commit()
        assert job.result().written == 1
    assert ranges(monitoring) == {"psi": (None, 1), "ks": (None, 3)}


def test_who_waits_while_a_series_is_forgotten_holds_nothing_of_it(head: Database, monitoring: Monitoring) -> None:
    monitoring.expect("drift", "psi", lower=0)
    lock = "LOCK TABLE ONLY monitoring_metrics IN SHARE ROW EXCLUSIVE MODE"  # as forget() takes it
    with another_session(head, "forget", lock) as forget, ThreadPoolExecutor(1) as threads:
        job = threads.submit(monitoring.log_many, [row()], bounds=[bound(upper=3)])
        wait_until(lambda: job.done() or head.value(WAITING), "it to wait")
        forget.execute("DELETE FROM mlops_internal.metric_series")
        forget.commit()
        assert job.result().written == 1
    assert ranges(monitoring) == {"psi": (None, 3)}


def test_expect_and_forget_meanwhile_neither_deadlock_nor_leave_a_row_unknown(head: Database) -> None:
    def log(number: int) -> None:
        for _ in range(15):
            db.monitoring.log_many([row(), row("ks")], replace=NOON, bounds=[bound(upper=number), bound("ks", lower=0)])

    def expect(number: int) -> None:
        for _ in range(30):
            for name in ("psi", "ks"):
                db.monitoring.expect("drift", name, interval=HOUR, lower=number)

    def forget(_: int) -> None:
        for _ in range(10):
            for name in ("psi", "ks"):
                with suppress(UnknownSeriesError):
                    db.monitoring.forget("drift", name, with_rows=True)

    with DatabaseManager(head.settings) as db, ThreadPoolExecutor(5) as threads:
        for job in [threads.submit(work, number) for number, work in enumerate((log, log, log, expect, forget))]:
            job.result()
    assert head.value("SELECT count(*) FROM mlops_internal.missing_series()") == 0


def test_a_writer_that_forget_waits_for_sets_its_bounds(head: Database, monitoring: Monitoring) -> None:
    monitoring.expect("drift", "psi", lower=0)
    half, go = threading.Event(), threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        yield from (row() for _ in range(2000))
        half.set()
        go.wait(TIMEOUT_S)
        yield row()

    with ThreadPoolExecutor(2) as threads:
        job = threads.submit(monitoring.log_many, rows(), bounds=[bound(upper=3)])
        half.wait(TIMEOUT_S)
        forgotten = threads.submit(monitoring.forget, "drift", "psi", with_rows=True)
        wait_until(lambda: forgotten.done() or head.value(WAITING), "it to wait")
        go.set()
        assert job.result().written == 2001
        assert forgotten.result() == 2001
    assert monitoring.series() == []
