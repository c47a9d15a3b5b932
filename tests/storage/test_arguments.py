"""What is taken as a number, a text or a moment, of whatever library: the nearest double, or a refusal by name."""

import dataclasses
import enum
import json
import math
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_db.errors import InvalidMetricError, InvalidValueError
from mlops_db.settings import Settings
from mlops_db.storage import arguments, decisions, monitoring
from mlops_db.storage.arguments import check_choice, check_limit, check_moment, check_number, check_score, check_text
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.gates import encode_gates
from mlops_db.storage.json_values import encode_json
from mlops_db.storage.metrics import copy_stream
from mlops_db.storage.metrics.copy_stream import MetricCopy, SkippedRow
from mlops_db.storage.metrics.rows import check_bounds, check_interval
from support.database import Database

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

UTC = timezone.utc
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOST = 2**53
LONGER = np.finfo(np.longdouble).nmant > 60  # not on every machine


class Plain(enum.Enum):
    HALF = 0.5


class Whole(enum.IntEnum):
    THREE = 3


class Real(float, enum.Enum):
    QUARTER = 0.25


@dataclasses.dataclass
class Measured:
    value: float = 0.5


class Tensor:
    """As PyTorch's: its item() is what it holds."""

    def __init__(self, item: Any) -> None:
        self._item = item

    def item(self) -> Any:
        if isinstance(self._item, Exception):
            raise self._item
        return self if self._item == "itself" else self._item


class Floating:
    def __init__(self, value: Any) -> None:
        self._value = value

    def __float__(self) -> Any:
        return self._value


class Index:
    def __index__(self) -> int:
        return 5


class Liar(float):
    def __float__(self) -> float:
        return 99.0


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no\nrepr")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no ==")

    __hash__ = None  # type: ignore[assignment]


NUMBERS: Mapping[str, tuple[Any, float]] = {
    "float16": (np.float16(0.1), 0.0999755859375),
    "float32": (np.float32(0.1), 0.10000000149011612),
    "float64": (np.float64(0.1), 0.1),
    "long double": (np.longdouble(0.1), 0.1),
    "int8": (np.int8(-3), -3.0),
    "uint64": (np.uint64(2**63), 2.0**63),
    "bool_": (np.bool_(True), 1.0),  # noqa: FBT003
    "an array without dimensions": (np.array(0.5), 0.5),
    "a masked array's value": (np.ma.array(0.5, mask=False), 0.5),
    "Arrow's double": (pa.scalar(0.5), 0.5),
    "Arrow's float": (pa.scalar(0.1, pa.float32()), 0.10000000149011612),
    "Arrow's integer": (pa.scalar(7), 7.0),
    "Arrow's decimal": (pa.scalar(Decimal("0.10")), 0.1),
    "polars' value": (pl.Series([0.1], dtype=pl.Float32)[0], 0.10000000149011612),
    "a tensor": (Tensor(0.5), 0.5),
    "a decimal": (Decimal("0.1"), 0.1),
    "a decimal too small for a double": (Decimal("1e-400"), 0.0),
    "a decimal of nothing, much of it": (Decimal("0E+999999"), 0.0),
    "a whole decimal": (Decimal("3.00"), 3.0),
    "a fraction": (Fraction(1, 3), 1 / 3),
    "the greatest exact integer": (MOST, float(MOST)),
    "an integer that a double has": (3 * 2**100, 3 * 2.0**100),
    "an enumeration of integers": (Whole.THREE, 3.0),
    "an enumeration of floats": (Real.QUARTER, 0.25),
    "a float with a float() of its own": (Liar(0.5), 0.5),
}
NO_NUMBERS: Mapping[str, Any] = {
    "masked": np.ma.masked,
    "an array's masked value": np.ma.array(0.5, mask=True),
    "a masked array's masked value": np.ma.array([0.5, 1], mask=[0, 1])[1],
    "an array of one": np.array([0.5]),
    "an array of two": np.array([0.5, 0.5]),
    "a matrix": np.ones((2, 2)),
    "an array of objects": np.array(None, dtype=object),
    "a record": np.array((1, 2.0), dtype="i4,f8")[()],
    "a Series of one": pd.Series([0.5]),
    "a Series of two": pd.Series([0.5, 0.5]),
    "an Index": pd.Index([0.5, 0.5]),
    "a frame": pd.DataFrame({"a": [0.5, 0.5]}),
    "polars' Series of one": pl.Series([0.5]),
    "polars' Series of two": pl.Series([0.5, 0.5]),
    "polars' frame": pl.DataFrame({"a": [0.5, 0.5]}),
    "polars' expression": pl.col("a"),
    "Arrow's array": pa.array([0.5, 0.5]),
    "Arrow's table": pa.table({"a": [0.5, 0.5]}),
    "NaT": pd.NaT,
    "NA": pd.NA,
    "a span of nanoseconds": np.timedelta64(1, "ns"),
    "an array's span": np.array(1, dtype="m8[ns]"),
    "a moment in nanoseconds": np.datetime64(1, "ns"),
    "pandas' span": pd.Timedelta(1),
    "Arrow's span": pa.scalar(1, pa.duration("ns")),
    "Arrow's moment": pa.scalar(1, pa.timestamp("ns", "UTC")),
    "Arrow's moment of no year": pa.scalar(2**61, pa.timestamp("s", "UTC")),
    "NumPy's complex": np.complex64(1),
    "NumPy's infinity": np.float32("inf"),
    "a long double beyond doubles": np.longdouble("1e4000") if LONGER else math.inf,
    "an unsigned integer that no double has": np.uint64(2**64 - 1),
    "an integer that no double has": MOST + 1,
    "a negative one": -MOST - 1,
    "Arrow's": pa.scalar(MOST + 1),
    "a tensor's": Tensor(MOST + 1),
    "a whole decimal that no double has": Decimal(MOST + 1),
    "a whole fraction that no double has": Fraction(MOST + 1),
    "a whole long double that no double has": np.longdouble(2) ** 60 + 1 if LONGER else MOST + 1,
    "an integer beyond doubles": 2**1024,
    "a fraction beyond doubles": Fraction(10**400, 3),
    "a decimal beyond doubles": Decimal("1e999999"),
    "a tensor that is infinite": Tensor(math.inf),
    "a tensor that fails": Tensor(ValueError("of\nno length")),
    "a tensor that holds itself": Tensor("itself"),
    "a tensor that holds nothing": Tensor(None),
    "a tensor that holds text": Tensor("0.5"),
    "what has a float() only": Floating(0.5),
    "what has an infinite float()": Floating(math.inf),
    "what has a text for a float()": Floating("0.5"),
    "what has an index only": Index(),
    "what cannot be asked": Unreadable(),
    "what is gone": weakref.proxy(Measured()),
    "an enumeration": Plain.HALF,
    "a class of measurements": Measured(),
    "a UUID": uuid.UUID(int=1),
    "a path": PurePosixPath("/x"),
    "bytes": b"1",
    "a moment": NOON,
    "a date": NOON.date(),
    "a span": timedelta(1),
    "a complex number": 1j,
}


def logged(value: Any) -> float | None:
    row = {"metric_type": "drift", "metric_name": "age", "metric_value": value}
    copy = MetricCopy([row], at=NOON, only_at=False, skip=False)
    stored = b"".join(iter(copy.read, b"")).decode().split("\t")[4]
    return None if stored == "\\N" else float(stored)


def skipped_of(row: Mapping[str, Any]) -> list[SkippedRow]:
    copy = MetricCopy([row], at=NOON, only_at=False, skip=True)
    assert not list(iter(copy.read, b""))
    return copy.skipped


PLACES: Mapping[str, Callable[[Any], float | None]] = {
    "metric_value": logged,
    "lower": lambda value: check_bounds(value, None)[0],
    "upper": lambda value: check_bounds(None, value)[1],
    "number": lambda value: check_number(value, "number", hint="x"),
}


def refusal(take: Callable[[], object]) -> InvalidValueError:
    with pytest.raises(InvalidValueError) as caught:
        take()
    assert len(f"{caught.value}\n{caught.value.hint}".splitlines()) == 2
    assert len(str(caught.value)) < 400
    return caught.value


@pytest.mark.parametrize("place", PLACES)
def test_a_number_is_the_nearest_double(place: str) -> None:
    for kind, (value, stored) in NUMBERS.items():
        assert repr(PLACES[place](value)) == repr(stored), kind


@pytest.mark.parametrize("place", [*PLACES, "f1_score"])
def test_what_is_no_number_is_refused_by_name(place: str) -> None:
    take = PLACES.get(place) or (lambda value: check_score(value, "f1_score"))
    for kind, value in NO_NUMBERS.items():
        assert refusal(lambda value=value: take(value)).key == place, kind


DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
WRAPPED: st.SearchStrategy[Any] = st.one_of(
    DOUBLES.flatmap(lambda x: st.sampled_from([x, np.float64(x), np.array(x), pa.scalar(x), Tensor(x), Decimal(x)])),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(np.float32),
    st.floats(allow_nan=False, allow_infinity=False, width=16).map(np.float16),
    st.integers(-(2**63), 2**63 - 1).flatmap(
        lambda n: st.sampled_from([n, np.int64(n), np.array(n), pa.scalar(n), Tensor(n), Decimal(n), Fraction(n)])
    ),
    st.integers(),
    st.decimals(-Decimal("1e310"), Decimal("1e310")),
    st.fractions(),
)


def exact_value(value: Any) -> Fraction:
    held = value.item() if isinstance(value, np.generic | np.ndarray | Tensor) else value
    return Fraction(held.as_py() if isinstance(held, pa.Scalar) else held)


@given(WRAPPED)
def test_no_number_becomes_another(value: Any) -> None:
    exact = exact_value(value)
    try:
        stored = check_number(value, "x", hint="y")
    except InvalidValueError:
        # Only what no double comes near, or what is whole and would be another whole number.
        assert abs(exact) > 1.7e308 or (exact.denominator == 1 and Fraction(float(exact)) != exact)
    else:
        assert stored == float(exact)
        assert stored is not None
        assert exact.denominator > 1 or Fraction(stored) == exact


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array(True), pa.scalar(True)])  # noqa: FBT003
def test_a_boolean_is_no_score(value: Any) -> None:
    with pytest.raises(InvalidValueError, match="is no score"):
        check_score(value, "f1_score")


def test_what_to_give_instead() -> None:
    for value, hint in (
        (Plain.HALF, "Give its .value."),
        (MOST + 1, "Give float() of it, if the nearest double will do."),
        (np.ma.masked, "Give a finite number, or None for no value; record a computation that failed with"),
    ):
        with pytest.raises(InvalidMetricError) as caught:
            logged(value)
        assert caught.value.hint.startswith(hint)


# In JSON


PARTS: Mapping[str, tuple[Any, Any]] = {
    "float16": (np.float16(0.1), 0.0999755859375),
    "float32": (np.float32(0.1), 0.10000000149011612),
    "int64": (np.int64(MOST + 1), MOST + 1),
    "a large integer": (10**40, 10**40),
    "bool_": (np.bool_(True), True),  # noqa: FBT003
    "an array without dimensions": (np.array(7), 7),
    "Arrow's text": (pa.scalar("a"), "a"),
    "Arrow's nothing": (pa.scalar(None), None),
    "Arrow's struct": (pa.scalar({"a": [1, None]}), {"a": [1, None]}),
    "a tensor": (Tensor(0.5), 0.5),
    "an enumeration of integers": (Whole.THREE, 3),
    "NumPy's text": (np.str_("a"), "a"),
    "a mapping": (MappingProxyType({"a": (1, 2)}), {"a": [1, 2]}),
    "a float with a float() of its own": (Liar(0.5), 0.5),
}


class Twice(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "a"])

    def __len__(self) -> int:
        return 1


class Broken(Twice):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError("lost")


class BrokenList(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("lost")


NO_PARTS: Mapping[str, tuple[Any, str]] = {
    "masked": (np.ma.masked, "give None"),
    "an array's masked value": (np.ma.array(1, mask=True), ""),
    "an array": (np.array([1, 2]), ".tolist()"),
    "a Series": (pd.Series([1, 2]), ".tolist()"),
    "polars' Series": (pl.Series([1, 2]), ".to_list()"),
    "polars' frame": (pl.DataFrame({"a": [1]}), ".to_dicts()"),
    "a frame": (pd.DataFrame({"a": [1]}), ".to_dict()"),
    "Arrow's array": (pa.array([1, 2]), ".tolist()"),
    "NaT": (pd.NaT, "give None"),
    "NA": (pd.NA, "give None"),
    "a span of nanoseconds": (np.timedelta64(1, "ns"), "as text"),
    "a moment in nanoseconds": (np.datetime64(1, "ns"), "as text"),
    "a record": (np.array((1, 2.0), dtype="i4,f8")[()], ""),
    "a complex number": (1j, "as text"),
    "a decimal": (Decimal("0.5"), "float() or str()"),
    "a fraction": (Fraction(1, 2), "float() or str()"),
    "an enumeration": (Plain.HALF, ".value"),
    "a class of measurements": (Measured(), "dataclasses.asdict()"),
    "a UUID": (uuid.UUID(int=1), "as text"),
    "a path": (PurePosixPath("/x"), "as text"),
    "bytes": (b"1", ".hex()"),
    "a set": ({1}, "a list"),
    "a moment": (NOON, ".isoformat()"),
    "pandas' moment": (pd.Timestamp(NOON), ".isoformat()"),
    "a date": (date(2026, 1, 1), ".isoformat()"),
    "a span": (timedelta(1), ".total_seconds()"),
    "a tensor that fails": (Tensor(ValueError("x")), "as text"),
    "a tensor that holds itself": (Tensor("itself"), "as text"),
    "what cannot be asked": (Unreadable(), "as text"),
    "what is gone": (weakref.proxy(Measured()), "as text"),
    "a list that cannot be read": (BrokenList(), ""),
    "a mapping that cannot be read": (Broken(), ""),
}


@pytest.mark.parametrize("take", [lambda value: encode_json(value, "metadata"), encode_gates])
def test_a_part_of_json_comes_back_equal(take: Callable[[Any], str]) -> None:
    for kind, (value, stored) in PARTS.items():
        taken = take({"gate": {"passed": np.bool_(True), "a": [value], "b": value}})  # noqa: FBT003
        assert json.loads(taken) == {"gate": {"passed": True, "a": [stored], "b": stored}}, kind


@pytest.mark.parametrize(
    ("take", "path"),
    [
        (lambda value: encode_json(value, "metadata"), "metadata"),
        (lambda value: encode_json({"a": [0, value]}, "metadata"), "metadata.a[1]"),
        (lambda value: encode_gates({"gate": {"passed": True, "x": math.inf, "y": [value]}}), "gates.gate.y[0]"),
        (lambda value: encode_gates({"gate": value}), "gates.gate"),
    ],
)
def test_what_is_no_json_is_refused_by_its_path(take: Callable[[Any], str], path: str) -> None:
    for kind, (value, hint) in NO_PARTS.items():
        error = refusal(lambda value=value: take(value))
        assert error.key == path, kind
        assert hint in error.hint, kind


def test_a_key_that_is_there_twice() -> None:
    with pytest.raises(InvalidValueError, match=r"metadata\.a: is there twice"):
        encode_json(Twice(), "metadata")
    with pytest.raises(InvalidValueError, match=r"gates\.x\.a: is there twice"):
        encode_gates({"x": Twice()})


# Text


class Kind(str, enum.Enum):
    DRIFT = "drift"


@pytest.mark.parametrize("value", [Kind.DRIFT, np.str_("drift"), pa.scalar("drift"), np.array("drift")])
def test_text_of_every_kind(value: Any) -> None:
    for taken in (check_text(value, "metric_type", most=100), check_choice(value, "action", ("drift", "other"))):
        assert (type(taken), taken) == (str, "drift")


def test_what_is_no_text_is_refused_by_name() -> None:
    for kind in NO_NUMBERS.keys() - {"a tensor that holds text"}:
        value = NO_NUMBERS[kind]
        row = {"metric_type": value, "metric_name": "age", "metric_value": 0.5}
        (skipped,) = skipped_of(row)
        assert (skipped.key, skipped.reason.endswith("is not text")) == ("metric_type", True), kind
        assert refusal(lambda value=value: check_choice(value, "action", ("drift", "other"))).key == "action", kind


def test_a_row_that_cannot_be_read_is_left_out() -> None:
    for row in (Broken(), weakref.proxy(Measured())):
        (skipped,) = skipped_of(row)
        assert (skipped.key, "cannot be read" in skipped.reason) == ("", True)


# How many


@pytest.mark.parametrize("value", [3, np.int64(3), np.array(3), pa.scalar(3), Whole.THREE])
def test_a_limit_of_every_kind(value: Any) -> None:
    assert (type(check_limit(value)), check_limit(value)) == (int, 3)


def test_what_is_no_limit_is_refused_by_name() -> None:
    whole = {"an unsigned integer that no double has", "an integer that no double has", "Arrow's", "a tensor's"}
    whole |= {"an integer beyond doubles", "a whole long double that no double has"}
    for kind in NO_NUMBERS.keys() - whole:
        assert refusal(lambda kind=kind: check_limit(NO_NUMBERS[kind])).key == "limit", kind
    for value in (True, np.bool_(True), 3.0, np.float64(3), "3", -1, np.int64(-1)):  # noqa: FBT003
        assert refusal(lambda value=value: check_limit(value)).key == "limit"


# Moments and spans


class OddMoment(datetime):
    def isoformat(self, *_: Any) -> str:  # type: ignore[override]
        return "never\t"

    def date(self) -> date:
        raise RuntimeError("no date")


@pytest.mark.parametrize(
    "value",
    [
        OddMoment.fromisoformat(str(NOON)),
        pd.Timestamp(NOON),
        pa.scalar(NOON),
        pa.scalar(NOON, pa.timestamp("s", "Asia/Tokyo")),
    ],
)
def test_moments_of_every_kind(value: Any) -> None:
    assert (type(check_moment(value, "since")), check_moment(value, "since")) == (datetime, NOON)


def test_what_is_no_moment_is_refused_by_name() -> None:
    for kind in NO_NUMBERS.keys() - {"a moment", "Arrow's moment"}:
        row = {"metric_type": "drift", "metric_name": "age", "metric_value": 0.5, "timestamp": NO_NUMBERS[kind]}
        (skipped,) = skipped_of(row)
        assert (skipped.key, skipped.reason.endswith("is not a datetime")) == ("timestamp", True), kind


@pytest.mark.parametrize(
    "value",
    [np.datetime64("2026-03-01"), np.datetime64(1, "ns"), NOON.replace(tzinfo=None), pa.scalar(datetime(2026, 3, 1))],  # noqa: DTZ001
)
def test_a_moment_without_a_time_zone_is_told_how_to_get_one(value: Any) -> None:
    error = refusal(lambda: check_moment(value, "since"))
    assert error.key == "since"
    assert "replace(tzinfo=timezone.utc)" in error.hint


@pytest.mark.parametrize("value", ["2026-03-01T00:00:00+00:00", "2026-03-01T00:00:00Z", np.str_("soon"), pa.scalar("")])
def test_a_moment_as_text_is_told_how_to_read_it(value: Any) -> None:
    error = refusal(lambda: check_moment(value, "since"))
    assert error.reason.endswith("is not a datetime")
    assert "datetime.fromisoformat(text)" in error.hint


def test_an_interval_of_pandas() -> None:
    stored = check_interval(pd.Timedelta(hours=1, nanoseconds=1))
    assert (type(stored), stored) == (timedelta, timedelta(hours=1))
    assert check_interval(pa.scalar(timedelta(1))) == timedelta(1)
    no_spans = (pd.NaT, pd.Timedelta(nanoseconds=1), pd.Series([pd.Timedelta(1)] * 2), np.timedelta64(1, "h"), 3600)
    for value in (*no_spans, timedelta.max, timedelta(360_000, 0, 1), weakref.proxy(Measured())):
        with pytest.raises(InvalidValueError, match="is not a timedelta above 0"):
            check_interval(value)


# Through the whole


def test_what_is_taken_is_stored_and_what_is_refused_leaves_nothing(head: Database) -> None:
    names = list(NUMBERS)
    rows = [{"metric_type": "t", "metric_name": name, "metric_value": NUMBERS[name][0]} for name in names]
    bad = [{"metric_type": "t", "metric_name": name, "metric_value": value} for name, value in NO_NUMBERS.items()]
    with DatabaseManager(head.settings) as db:
        for row in rows:
            db.monitoring.log(**row)
        done = db.monitoring.log_many([*rows, *bad], on_invalid=pa.scalar("skip"))  # type: ignore[arg-type]
        assert (done.written, done.skipped_count) == (len(rows), len(bad))
        stored = head.query("SELECT metric_name, metric_value FROM monitoring_metrics ORDER BY id")
        assert stored == [(name, NUMBERS[name][1]) for name in names] * 2
        longest = timedelta(days=360_000)
        db.monitoring.expect("t", "float32", interval=longest, lower=np.float32(0.1), upper=pa.scalar(0.5))
        series = next(each for each in db.monitoring.series() if each.metric_name == "float32")
        assert (series.lower_threshold, series.upper_threshold) == (0.10000000149011612, 0.5)
        assert series.expected_interval == longest
        version = db.models.register("run", "1", f1_score=np.float32(0.1), brier_score=Decimal("0.1"))  # type: ignore[arg-type]
        assert (version.f1_score, version.brier_score) == (0.10000000149011612, 0.1)


def test_what_is_refused_is_not_sent() -> None:
    nowhere = DatabaseManager(Settings(host="/nonexistent"))
    for metadata in (Broken(), weakref.proxy(Measured())):
        error = refusal(lambda metadata=metadata: nowhere.monitoring.log_failure("t", "n", "x", metadata=metadata))
        assert error.key == "metadata"
    for value in NO_NUMBERS.values():
        for take in (
            lambda value=value: nowhere.monitoring.log("t", "n", value),
            lambda value=value: nowhere.monitoring.expect("t", "n", lower=value),
            lambda value=value: nowhere.models.register("run", "1", f1_score=value),
            lambda value=value: nowhere.monitoring.log("t", "n", 1, metadata={"a": {1: value}}),
        ):
            with pytest.raises(InvalidValueError):
                take()


# The clock


class _AnyDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, datetime)


@pytest.mark.parametrize("years", [-1, 1])
def test_the_servers_clock_says_what_is_ahead(head: Database, monkeypatch: pytest.MonkeyPatch, years: int) -> None:
    class WrongClock(datetime, metaclass=_AnyDatetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + years * timedelta(days=365)

    for module in (arguments, copy_stream, monitoring, decisions):
        monkeypatch.setattr(module, "datetime", WrongClock)
    (now,) = head.query("SELECT CURRENT_TIMESTAMP")[0]
    allowed, ahead = now + timedelta(hours=23), now + timedelta(hours=25)
    row = {"metric_type": "drift", "metric_name": "age", "metric_value": 0.5}
    with DatabaseManager(head.settings) as db:
        calls: Mapping[str, Callable[[datetime], object]] = {
            "log": lambda moment: db.monitoring.log(**row, timestamp=moment),
            "log_failure": lambda moment: db.monitoring.log_failure("drift", "age", "x", timestamp=moment),
            "log_many": lambda moment: db.monitoring.log_many([row, {**row, "timestamp": moment}]),
            "replace": lambda moment: db.monitoring.log_many([row], replace=moment),
            "record": lambda moment: db.decisions.record("reject", candidate="run", decided_at=moment),
        }
        for name, call in calls.items():
            for moment_ in (ahead, ahead.astimezone(UTC), datetime.max.replace(tzinfo=UTC)):
                error = refusal(lambda call=call, moment_=moment_: call(moment_))
                assert "is more than a day ahead of the server's clock" in error.reason, name
        assert db.monitoring.log_many([{**row, "timestamp": ahead}], on_invalid="skip").skipped_count == 1
        assert head.query("SELECT FROM monitoring_metrics") == head.query("SELECT FROM retraining_decisions") == []
        assert db.monitoring.series() == []
        for call in calls.values():
            call(allowed)
            call(datetime.min.replace(tzinfo=UTC))
    assert head.value("SELECT count(*) FROM retraining_decisions") == 2
