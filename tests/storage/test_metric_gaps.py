"""`db.monitoring.gaps`: where values are missing."""

import math
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db import DatabaseManager
from mlops_db.errors import InvalidValueError
from mlops_db.settings import Settings
from mlops_db.storage.metrics.gaps import Gap
from mlops_db.storage.monitoring import Monitoring
from support.database import Database

pytestmark = pytest.mark.libraries

UTC = timezone.utc
DAY = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SERIES = ("drift", "psi")


def hour(number: float) -> datetime:
    return DAY + number * HOUR


def log(monitoring: Monitoring, *hours: float, model_name: str = "default", value: float | None = 1.0) -> None:
    names = dict(zip(("metric_type", "metric_name"), SERIES, strict=True))
    rows = [{**names, "model_name": model_name, "metric_value": value, "timestamp": hour(number)} for number in hours]
    monitoring.log_many(rows)


def found(
    monitoring: Monitoring, since: float, until: float, model_name: str = "default"
) -> list[tuple[float, float, int, int]]:
    """Each gap of the one series of a model: since and until in hours, expected, missing."""
    gaps = monitoring.gaps(model_name, since=hour(since), until=hour(until))
    assert all((gap.model_name, gap.metric_type, gap.metric_name) == (model_name, *SERIES) for gap in gaps)
    return [((gap.since - DAY) / HOUR, (gap.until - DAY) / HOUR, gap.expected, gap.missing) for gap in gaps]


def test_a_gap_has_the_numbers_of_expected_and_missing_values(monitoring: Monitoring) -> None:
    log(monitoring, 0, 1, 2, 6, 7, 9)
    monitoring.expect(*SERIES, interval=HOUR)
    first, second = monitoring.gaps(since=DAY, until=hour(10))
    assert first == Gap("default", *SERIES, hour(2), hour(6), 4, 3)
    assert second == Gap("default", *SERIES, hour(7), hour(9), 2, 1)
    assert first.since.tzinfo is first.until.tzinfo is UTC


# Of an hourly series: the hours of its rows, since and until when it is asked, and its gaps.
CASES: list[tuple[list[float], tuple[float, float], list[tuple[float, float, int, int]]]] = [
    # What is missing at the ends counts; half an interval is not too late, or too early.
    ([0, 5, 6], (3, 9), [(3, 5, 2, 2), (6, 9, 3, 2)]),
    ([0, 1], (1, 2.4), []),
    ([0, 1], (0, 2.5), [(1, 2.5, 2, 1)]),
    ([0, 1, 2.4, 2.9, 4], (0, 5), []),
    ([0, 1.5], (0, 2), [(0, 1.5, 2, 1)]),
    ([-24, 24], (0, 3), [(0, 3, 3, 3)]),
    # Nothing is missing before the series was there.
    ([4, 5], (0, 6), []),
    ([4, 5], (0, 3), []),
    # Of what is cut by the beginning, what lies before it does not count.
    ([-1, 1], (0, 2), [(0, 1, 1, 1)]),
    ([-1, 1], (0.4, 2), [(0.4, 1, 1, 1)]),
    ([-1, 1], (0.5, 2), []),
    # Several rows of one moment are as one.
    ([0, 0, 0, 3, 3], (0, 4), [(0, 3, 3, 2)]),
    # Nothing was asked for.
    ([0, 5], (3, 3), []),
    ([0, 5], (4, 1), []),
]


def test_what_a_gap_is(monitoring: Monitoring) -> None:
    for place, (hours, _, _) in enumerate(CASES):
        log(monitoring, *hours, model_name=f"case {place}")
        monitoring.expect(*SERIES, interval=HOUR, model_name=f"case {place}")
    for place, (_, asked, gaps) in enumerate(CASES):
        assert found(monitoring, *asked, model_name=f"case {place}") == gaps, CASES[place]


def test_a_series_without_rows_is_missing_since_it_was_registered(head: Database, monitoring: Monitoring) -> None:
    monitoring.expect(*SERIES, interval=HOUR)
    head.query("UPDATE mlops_internal.metric_series SET registered_at = %s", [hour(2)])
    assert found(monitoring, 0, 6) == [(2, 6, 3, 3)]
    assert found(monitoring, 4, 6) == [(4, 6, 2, 2)]
    assert found(monitoring, 0, 2) == []
    log(monitoring, 5)
    assert found(monitoring, 0, 6) == [(2, 5, 2, 2)]


def test_a_row_without_a_value_is_there(monitoring: Monitoring) -> None:
    log(monitoring, 0, 2)
    log(monitoring, 1, value=None)
    monitoring.expect(*SERIES, interval=HOUR)
    assert found(monitoring, 0, 3) == []


def test_what_is_not_due_yet_is_not_missing(monitoring: Monitoring) -> None:
    now = datetime.now(UTC)
    monitoring.log(*SERIES, 1, timestamp=now - 2.6 * HOUR)
    monitoring.expect(*SERIES, interval=HOUR)
    for until in (None, now + 24 * HOUR, datetime.max.replace(tzinfo=UTC)):
        (gap,) = monitoring.gaps(since=now - 24 * HOUR, until=until)
        assert (gap.expected, gap.missing) == (3, 2)
        assert now <= gap.until < now + HOUR


def test_series_of_which_no_interval_is_expected_have_no_gaps_and_the_others_come_by_name(
    monitoring: Monitoring,
) -> None:
    for model in ("fraud", "churn", "free"):
        log(monitoring, 0, 3, 6, model_name=model)
    for model in ("fraud", "churn"):
        monitoring.expect(*SERIES, interval=HOUR, model_name=model)
    monitoring.expect(*SERIES, lower=0, model_name="free")
    asked: dict[str, Any] = {"since": DAY, "until": hour(7)}
    gaps = monitoring.gaps(**asked)
    assert [(gap.model_name, gap.since) for gap in gaps] == [
        ("churn", hour(0)), ("churn", hour(3)), ("fraud", hour(0)), ("fraud", hour(3)),
    ]  # fmt: skip
    assert monitoring.gaps("fraud", **asked) == monitoring.gaps("fraud", *SERIES, **asked) == gaps[2:]
    assert monitoring.gaps(metric_type="coverage", **asked) == monitoring.gaps(metric_name="ks", **asked) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_name", ""),
        ("metric_type", "x" * 101),
        ("metric_name", 7),
        ("since", datetime(2026, 3, 1)),  # noqa: DTZ001  (what is refused)
        ("since", None),
        ("until", "2026-03-01"),
    ],
)
def test_a_question_that_is_none_is_refused_by_name(key: str, value: Any) -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError) as caught:
        nowhere.gaps(**{"since": DAY, key: value})
    assert caught.value.key == key


# Any rows at all: the same as a model in plain Python.

minutes = st.integers(0, 48 * 4).map(lambda quarter: quarter / 4)


def fitting(after: float, until: float, interval: float) -> int:
    return max(math.floor((until - after) / interval + 0.5) - 1, 0)


@given(
    series=st.tuples(minutes, st.lists(minutes, max_size=12)),
    asked=st.tuples(minutes, minutes, minutes).map(sorted),
    interval=st.sampled_from([0.25, 1, 1.25, 6, 100]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gaps_are_what_the_model_says_and_those_of_two_times_are_those_of_both(
    head: Database,
    monitoring: Monitoring,
    series: tuple[float, list[float]],
    asked: list[float],
    interval: float,
) -> None:
    registered, hours = series
    since, between, until = asked
    head.query("DELETE FROM monitoring_metrics")
    monitoring.expect(*SERIES, interval=interval * HOUR)
    if hours:
        log(monitoring, *hours)
    head.query("UPDATE mlops_internal.metric_series SET registered_at = %s", [hour(registered)])

    gaps = found(monitoring, since, until)

    earlier = max((number for number in hours if number < since), default=registered)
    within = sorted(number for number in set(hours) if since <= number < until)
    expected = [
        (max(after, since), before, missing + (after in within), missing)
        for after, before in pairwise([earlier, *within, until])
        if (missing := fitting(after, before, interval) - fitting(after, since, interval)) > 0
    ]
    assert gaps == expected
    for gap_since, gap_until, values, missing in gaps:
        there = {row.timestamp for row in monitoring.history(*SERIES, since=hour(gap_since), until=hour(gap_until))}
        assert values - missing == len(there)
    halves = found(monitoring, since, between) + found(monitoring, between, until)
    assert sum(gap[3] for gap in halves) == sum(gap[3] for gap in gaps)
