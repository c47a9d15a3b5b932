import enum
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from mlops_db.errors import InvalidMetricError
from mlops_db.storage.arguments import check_moment, check_number
from mlops_db.storage.metrics.copy_stream import MAX_REMEMBERED, MAX_SKIPPED, MetricCopy

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

NOW = datetime.now(timezone.utc).replace(microsecond=0)
GOOD: Mapping[str, Any] = MappingProxyType({"metric_type": "drift", "metric_name": "age", "metric_value": 0.5})


def copied(rows: Iterable[Any], *, at: datetime = NOW, only_at: bool = False, skip: bool = False) -> MetricCopy:
    copy = MetricCopy(rows, at=at, only_at=only_at, skip=skip)
    while copy.read():
        pass
    return copy


def text_of(*rows: Any) -> str:
    copy = MetricCopy(rows, at=NOW, only_at=False, skip=False)
    return b"".join(iter(copy.read, b"")).decode()


class Kind(str, enum.Enum):
    DRIFT = "drift"


REFUSED = {
    "a value that is NaN": ({"metric_value": float("nan")}, "metric_value", "nan is not a finite number"),
    "an infinite value": ({"metric_value": float("-inf")}, "metric_value", "-inf is not a finite number"),
    "NumPy's NaN": ({"metric_value": np.float64("nan")}, "metric_value", "is not a finite number"),
    "Decimal's NaN": ({"metric_value": Decimal("sNaN")}, "metric_value", "is not a finite number"),
    "an integer beyond all floats": ({"metric_value": 10**400}, "metric_value", "is not a finite number"),
    "an integer that Python does not write": ({"metric_value": 10**9000}, "metric_value", "this int is not a finite"),
    "a number as text": ({"metric_value": "0.5"}, "metric_value", "'0.5' is not a number"),
    "a complex number": ({"metric_value": 1j}, "metric_value", "1j is not a number"),
    "NumPy's complex number": ({"metric_value": np.complex64(1)}, "metric_value", "is not a number"),
    "a list as a value": ({"metric_value": [0.5]}, "metric_value", "[0.5] is not a number"),
    "an array of one": ({"metric_value": np.array([0.5])}, "metric_value", "is not a number"),
    "a span of time as a value": ({"metric_value": np.timedelta64(1, "s")}, "metric_value", "is not a number"),
    "pandas' NA outside of a frame": ({"metric_value": pd.NA}, "metric_value", "<NA> is not a number"),
    "a naive timestamp": ({"timestamp": datetime(2026, 1, 1)}, "timestamp", "has no time zone"),  # noqa: DTZ001
    "pandas' naive timestamp": ({"timestamp": pd.Timestamp("2026-01-01")}, "timestamp", "has no time zone"),
    "NumPy's timestamp": ({"timestamp": np.datetime64("2026-01-01")}, "timestamp", "is not a datetime"),
    "pandas' NaT": ({"timestamp": pd.NaT}, "timestamp", "NaT is not a datetime"),
    "a date": ({"timestamp": date(2026, 1, 1)}, "timestamp", "is not a datetime"),
    "a timestamp as text": ({"timestamp": "2026-01-01T00:00:00Z"}, "timestamp", "is not a datetime"),
    "seconds since 1970": ({"timestamp": 1.7e9}, "timestamp", "is not a datetime"),
    "the far future": ({"timestamp": NOW + timedelta(days=2)}, "timestamp", "more than a day ahead"),
    "the far future elsewhere": (
        {"timestamp": (NOW + timedelta(days=2)).astimezone(ZoneInfo("Asia/Tokyo"))}, "timestamp", "a day ahead",
    ),
    "a moment before the year 1": (
        {"timestamp": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))}, "timestamp", "out of range",
    ),
    "a type of 101 characters": ({"metric_type": "x" * 101}, "metric_type", "is 101 characters long; 100 is the most"),
    "a name of 256 characters": ({"metric_name": "é" * 256}, "metric_name", "is 256 characters long; 255"),
    "a model of 256 characters": ({"model_name": "x" * 256}, "model_name", "is 256 characters long; 255"),
    "no name": ({"metric_name": None}, "metric_name", "None is not text"),
    "no model": ({"model_name": None}, "model_name", "None is not text"),
    "a blank name": ({"metric_name": " \n"}, "metric_name", "is blank"),
    "a name in bytes": ({"metric_name": b"age"}, "metric_name", "b'age' is not text"),
    "a list as a name": ({"metric_name": ["age"]}, "metric_name", "['age'] is not text"),
    "NUL in a name": ({"metric_name": "a\0b"}, "metric_name", "NUL"),
    "half a surrogate pair": ({"metric_name": "\ud800"}, "metric_name", "surrogate"),
    "NaN in metadata": ({"metadata": {"a": [float("nan")]}}, "metadata.a[0]", "nan"),
    "NUL in metadata": ({"metadata": {"a": "x\0"}}, "metadata.a", "NUL"),
    "a set in metadata": ({"metadata": {"a": {1, 2}}}, "metadata.a", "type set"),
    "an unknown key": ({"value": 0.5}, "value", "is not known"),
    "a key that is no text": ({1: 0.5}, "1", "is not known"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "key", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_row_is_named_with_its_key(change: Mapping[Any, Any], key: str, reason: str) -> None:
    with pytest.raises(InvalidMetricError) as caught:
        copied([GOOD, GOOD, {**GOOD, **change}, GOOD])
    error = caught.value
    assert (error.row, error.key) == (2, key)
    assert reason in error.reason
    assert str(error) == f"row 2: {key}: {error.reason}"
    assert error.hint
    assert len(str(error)) < 500


@pytest.mark.parametrize(("change", "key", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_row_can_be_left_out(change: Mapping[Any, Any], key: str, reason: str) -> None:
    copy = copied([GOOD, {**GOOD, **change}, GOOD], skip=True)
    assert (copy.sent, copy.skipped_count) == (2, 1)
    (skipped,) = copy.skipped
    assert (skipped.row, skipped.key) == (1, key)
    assert reason in skipped.reason
    assert len(skipped.excerpt) < 400


@pytest.mark.parametrize("key", ["metric_type", "metric_name", "metric_value"])
def test_a_key_that_every_row_needs(key: str) -> None:
    with pytest.raises(InvalidMetricError, match=f"row 1: {key}: is missing"):
        copied([GOOD, {name: value for name, value in GOOD.items() if name != key}])


@pytest.mark.parametrize("row", ["metric_type", ("drift", "age", 0.5), None, 7])
def test_what_is_not_a_mapping(row: object) -> None:
    with pytest.raises(InvalidMetricError, match=r"row 1: .* is not a mapping"):
        copied([GOOD, row])


def test_a_single_mapping_is_not_taken_for_rows() -> None:
    with pytest.raises(InvalidMetricError, match="row 0: 'metric_type' is not a mapping"):
        copied(GOOD)


def test_refused_rows_are_reported_in_bounded_memory() -> None:
    rows = ({**GOOD, "metadata": {"long" * 999: {("x" * 9999,): {1}}, **dict.fromkeys(range(99))}} for _ in range(1500))
    copy = copied(rows, skip=True)
    assert (copy.sent, copy.skipped_count, len(copy.skipped)) == (0, 1500, MAX_SKIPPED)
    assert [skipped.row for skipped in copy.skipped] == list(range(MAX_SKIPPED))
    assert max(len(text) for skipped in copy.skipped for text in (skipped.key, skipped.reason, skipped.excerpt)) < 400


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, 1.0),
        (False, 0.0),
        (3, 3.0),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (Decimal("0.1"), 0.1),
        (Fraction(1, 4), 0.25),
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.bool_(True), 1.0),  # noqa: FBT003
        (np.array(0.5), 0.5),
        (None, None),
    ],
)
def test_numbers_of_every_kind(value: object, stored: float | None) -> None:
    checked = check_number(value, "metric_value", hint="")
    assert repr(checked) == repr(stored)
    assert text_of({**GOOD, "metric_value": value}).split("\t")[4] == ("\\N" if stored is None else repr(stored))


def test_moments_become_utc_and_microseconds() -> None:
    assert check_moment(datetime(2026, 7, 1, 14, tzinfo=ZoneInfo("Europe/Berlin")), "since") == datetime(
        2026, 7, 1, 12, tzinfo=timezone.utc
    )
    stored = check_moment(pd.Timestamp("2026-01-01T00:00:00.123456789", tz="UTC"), "timestamp")
    assert type(stored) is datetime
    assert stored == datetime(2026, 1, 1, microsecond=123456, tzinfo=timezone.utc)
    assert check_moment(NOW + timedelta(hours=23), "timestamp")


def test_a_moment_is_remembered_no_longer_than_its_row() -> None:
    earlier = NOW - timedelta(days=1)
    rows = [{**GOOD, "timestamp": moment} for moment in (earlier, earlier, None, earlier, NOW, earlier)]
    moments = [line.split("\t")[3] for line in text_of(GOOD, *rows).splitlines()]
    assert moments == [moment.isoformat() for moment in (NOW, earlier, earlier, NOW, earlier, NOW, earlier)]


def test_names_are_escaped_and_enumerations_are_their_text() -> None:
    line = text_of({**GOOD, "metric_type": Kind.DRIFT, "metric_name": 'a\tb\\c\nd\r"é', "model_name": np.str_("m")})
    assert line == f'drift\ta\\tb\\\\c\\nd\\r"é\tm\t{NOW.isoformat()}\t0.5\t\\N\n'


def test_more_names_than_are_remembered() -> None:
    names = [f"name {number}" for number in range(MAX_REMEMBERED + 10)]
    lines = text_of(*({**GOOD, "metric_name": name} for name in [*names, *names])).splitlines()
    assert [line.split("\t")[1] for line in lines] == [*names, *names]


def test_mappings_of_every_kind() -> None:
    assert text_of(MappingProxyType(dict(GOOD))) == text_of(GOOD)


def test_only_one_moment() -> None:
    there = NOW.astimezone(ZoneInfo("Asia/Tokyo"))
    rows = [GOOD, {**GOOD, "timestamp": NOW}, {**GOOD, "timestamp": there, "model_name": "churn"}]
    assert copied(rows, only_at=True).series == {
        (model, GOOD["metric_type"], GOOD["metric_name"]) for model in ("default", "churn")
    }
    with pytest.raises(InvalidMetricError, match=r"row 1: timestamp: .* is not the moment that is replaced"):
        copied([GOOD, {**GOOD, "timestamp": NOW - timedelta(microseconds=1)}], only_at=True)


def test_a_stream_is_sent_while_it_is_made() -> None:
    made = 0

    def rows() -> Iterable[Mapping[str, Any]]:
        nonlocal made
        for made in range(1, 100_001):  # noqa: B007  (the test reads it)
            yield GOOD

    copy = MetricCopy(rows(), at=NOW, only_at=False, skip=False)
    assert copy.read()
    assert 0 < made < 1_000


def test_nothing_imports_pandas() -> None:
    code = "import sys, mlops_db.storage.monitoring; sys.exit(bool({'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
