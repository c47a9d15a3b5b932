"""Tables as `log_many` takes them: pandas' frames with their index, and whatever Arrow knows."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlops_db.errors import InvalidValueError, MissingExtraError
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.metrics.arrow_tables import rows_of_table
from mlops_db.storage.metrics.copy_stream import MetricCopy, SkippedRow
from mlops_db.storage.metrics.rows import ROWS_AT_ONCE
from mlops_db.storage.metrics.tables import rows_of
from support.database import Database

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

UTC = timezone.utc
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURS = pd.date_range("2026-01-01", periods=2, freq="h", tz="UTC")
FIRST, SECOND = (hour.isoformat() for hour in HOURS.to_pydatetime())
NAMES: Mapping[str, Any] = {"metric_type": ["drift", "drift"], "metric_name": ["age", "income"]}
TWO: Mapping[str, Any] = {**NAMES, "metric_value": [0.5, 1.0]}


def copied(table: Any) -> tuple[list[list[str]], list[SkippedRow]]:
    """What goes to the server, as texts of type, name, model, timestamp, value and metadata; and what is left out."""
    copy = MetricCopy(rows_of(table), at=NOW, only_at=False, skip=True)
    lines = b"".join(iter(copy.read, b"")).decode().splitlines()
    return [line.split("\t") for line in lines], copy.skipped


def moments(table: Any) -> list[str]:
    lines, skipped = copied(table)
    assert skipped == []
    return [line[3] for line in lines]


def stored(table: Any) -> list[Any]:
    """What becomes of metric_value: its text, or why it is refused."""
    lines, skipped = copied(table)
    output = {each.row: each.reason for each in skipped}
    values = (line[4] for line in lines)
    return [output.get(row) or next(values) for row in range(len(lines) + len(output))]


# The index


@pytest.mark.parametrize(
    "index",
    [
        HOURS,
        HOURS.rename("window"),
        HOURS.rename("timestamp").tz_convert("Asia/Tokyo"),
        HOURS.as_unit("s"),
        pd.Index([hour.to_pydatetime() for hour in HOURS], dtype=object),
        pd.Index([hour.to_pydatetime() for hour in HOURS], dtype=object, name="timestamp"),
        pd.Index(HOURS, dtype=pd.ArrowDtype(pa.timestamp("ns", tz="Europe/Berlin"))),
        pd.CategoricalIndex(HOURS),
        pd.MultiIndex.from_arrays([["x", "y"], HOURS]),
        pd.MultiIndex.from_arrays([[0, 0], HOURS], names=["fold", "timestamp"]),
    ],
    ids=str,
)
def test_an_index_of_moments_is_the_timestamp(index: pd.Index) -> None:
    assert moments(pd.DataFrame(TWO, index=index)) == [FIRST, SECOND]


@pytest.mark.parametrize("index", [None, [7, 7], ["x", "y"], [0.5, 1.5], pd.to_timedelta([1, 2])])
def test_another_index_only_counts_rows(index: Any) -> None:
    assert moments(pd.DataFrame(TWO, index=index)) == [NOW.isoformat()] * 2


def test_an_index_of_moments_and_other_things_is_refused_where_it_has_those() -> None:
    for other in ("total", 7):
        lines, skipped = copied(pd.DataFrame(TWO, index=pd.Index([HOURS[0].to_pydatetime(), other], dtype=object)))
        assert [line[3] for line in lines] == [FIRST]
        assert [(each.row, each.key) for each in skipped] == [(1, "timestamp")]


def test_levels_with_the_names_of_keys_are_columns() -> None:
    index = pd.MultiIndex.from_arrays([HOURS, ["age", "income"], [1, 2]], names=["at", "metric_name", "fold"])
    lines, skipped = copied(pd.DataFrame({"metric_type": "drift", "metric_value": [0.5, 1.0]}, index=index))
    assert [line[1] for line in lines] == ["age", "income"]
    assert [line[3] for line in lines] == [FIRST, SECOND]
    assert skipped == []


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({**TWO, "timestamp": HOURS}, index=HOURS),
        pd.DataFrame({**TWO, "timestamp": HOURS}).set_index("timestamp", drop=False),
        pd.DataFrame(TWO, index=pd.MultiIndex.from_arrays([HOURS, HOURS])),
    ],
)
def test_two_timestamps_are_one_too_many(frame: pd.DataFrame) -> None:
    with pytest.raises(InvalidValueError, match=r"^timestamp: is the name of several columns") as caught:
        rows_of(frame)
    assert "reset_index(drop=True)" in caught.value.hint


@pytest.mark.parametrize(
    ("index", "reason", "hint"),
    [
        (HOURS.tz_localize(None), "has no time zone", "tz_localize('UTC')"),
        (HOURS.tz_localize(None).to_period("h"), "is not a datetime", ""),
        ([date(2026, 1, 1)] * 2, "is not a datetime", ""),
        (pd.Index(["2026-01-01", "2026-01-02"], name="timestamp"), "is not a datetime", ""),
        (pd.DatetimeIndex([pd.NaT, pd.NaT], tz="UTC"), "NaT is not a datetime", ""),
        (pd.interval_range(HOURS[0], periods=2, freq="h"), "is not a datetime", ""),
    ],
)
def test_an_index_that_is_not_of_aware_moments_is_refused(index: Any, reason: str, hint: str) -> None:
    frame = pd.DataFrame(TWO, index=index)
    lines, skipped = copied(frame)
    assert lines == []
    assert [(each.row, each.key) for each in skipped] == [(0, "timestamp"), (1, "timestamp")]
    assert skipped[0].reason.endswith(reason)
    with pytest.raises(InvalidValueError) as caught:
        MetricCopy(rows_of(frame), at=NOW, only_at=False, skip=False).read()
    assert hint in caught.value.hint


# The columns of pandas

BEYOND = "is a whole number that no double holds exactly"


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (pd.Series([0.1, 1], dtype="float32"), ["0.10000000149011612", "1.0"]),
        (pd.Series([0.1, 1], dtype="float16"), ["0.0999755859375", "1.0"]),
        (pd.Series([0.1, 1], dtype="Sparse[float32]"), ["0.10000000149011612", "1.0"]),
        (pd.Series([0.1, 1], dtype=pd.ArrowDtype(pa.float32())), ["0.10000000149011612", "1.0"]),
        (pd.Series([0.1, None], dtype="Float64"), ["0.1", "\\N"]),
        (pd.Series([0.1, None], dtype=pd.ArrowDtype(pa.float64())), ["0.1", "\\N"]),
        (pd.Series([2**53 + 1, None], dtype="Int64"), [f"{2**53 + 1} {BEYOND}", "\\N"]),
        (pd.Series([2**53 + 1, 5], dtype="int64"), [f"{2**53 + 1} {BEYOND}", "5.0"]),
        (pd.Series([2**64 - 1, 5], dtype="uint64"), [f"{2**64 - 1} {BEYOND}", "5.0"]),
        (pd.Series([True, None], dtype="boolean"), ["1.0", "\\N"]),
        (pd.Series([1, 2j]), ["(1+0j) is not a number", "2j is not a number"]),
        (pd.Series([1.5, 0.5], dtype="category"), ["1.5", "0.5"]),
        (pd.Series([Decimal("0.1"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))), ["0.1", "\\N"]),
        (pd.Series([np.float32(0.5), np.ma.masked], dtype=object), ["0.5", "masked is not a number"]),
        (pd.Series([np.array([1, 2]), pd.NA], dtype=object), ["array([1, 2]) is not a number", "\\N"]),
        (pd.Series([0.5, float("nan")], dtype=object), ["0.5", "nan is not a finite number"]),
    ],
    ids=lambda column: str(getattr(column, "dtype", "")),
)
def test_values_of_a_frame(column: pd.Series, wanted: list[str]) -> None:
    assert stored(pd.DataFrame({**NAMES, "metric_value": column})) == wanted


@pytest.mark.parametrize(
    "names",
    [
        pd.Series(["age", None]),  # of pandas 3: in pyarrow, with NaN
        pd.Series(["age", None], dtype=object),
        pd.Series(["age", None], dtype="string[python]"),
        pd.Series(["age", None], dtype="string[pyarrow]"),
        pd.Series(["age", None], dtype="category"),
        pd.Series(["age", None], dtype=pd.ArrowDtype(pa.string())),
    ],
    ids=lambda names: str(names.dtype),
)
def test_names_of_a_frame(names: pd.Series) -> None:
    lines, skipped = copied(pd.DataFrame({**TWO, "metric_name": names}))
    assert [line[1] for line in lines] == ["age"]
    assert [(each.row, each.key) for each in skipped] == [(1, "metric_name")]


def test_metadata_of_a_frame() -> None:
    holes = pd.DataFrame({**TWO, "metadata": pd.Series([np.float64("nan"), pd.NaT], dtype=object)})
    assert [line[5] for line in copied(holes)[0]] == ["\\N", "\\N"]
    structs = pd.Series([{"a": 1}, None], dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())])))
    assert [line[5] for line in copied(pd.DataFrame({**TWO, "metadata": structs}))[0]] == ['{"a":1}', "\\N"]
    odd = pd.DataFrame({**TWO, "metadata": pd.Series([np.array([1, 2]), pd.Series([1, 2])], dtype=object)})
    assert [each.key for each in copied(odd)[1]] == ["metadata", "metadata"]


def test_a_moment_beyond_python_leaves_the_others_alone() -> None:
    far = pd.Series(np.array([2**60, 5], dtype="M8[s]")).dt.tz_localize("UTC")
    for frame in (pd.DataFrame({**TWO, "timestamp": far}), pd.DataFrame(TWO, index=pd.DatetimeIndex(far))):
        lines, skipped = copied(frame)
        assert [line[3] for line in lines] == ["1970-01-01T00:00:05+00:00"]
        assert [(each.row, each.key) for each in skipped] == [(0, "timestamp")]


# Arrow


def table(**columns: Any) -> pa.Table:
    return pa.table({**TWO, **columns})


class Capsule:
    """No more than Arrow's PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "given",
    [
        table(),
        table().to_batches()[0],
        table().to_reader(),
        table().to_struct_array(),
        Capsule(table()),
        pl.DataFrame(TWO),
        pl.DataFrame(TWO).with_columns(pl.col("metric_type", "metric_name").cast(pl.Categorical)),
        pl.DataFrame(TWO).with_columns(metric_value=pl.col("metric_value").cast(pl.Decimal(10, 2))),
        pl.DataFrame(TWO).to_struct("rows"),
        pl.DataFrame(TWO).iter_rows(named=True),
        pd.Series(table().to_pylist()),
        table(metric_name=table()["metric_name"].dictionary_encode()),
        table(metric_name=pa.array(["age", "income"], pa.large_string())),
        table(metric_name=pa.array(["age", "income"]).cast(pa.string_view())),
        table(metric_value=pa.array(np.array([0.5, 1], dtype="f2"))),
        table(metric_value=pa.array([Decimal("0.5"), 1], pa.decimal128(10, 2))),
        table(timestamp=pa.nulls(2), metadata=pa.nulls(2), model_name=["default"] * 2),
    ],
    ids=lambda given: type(given).__name__,
)
def test_tables_of_every_kind(given: Any) -> None:
    assert copied(given) == (
        [
            ["drift", "age", "default", NOW.isoformat(), "0.5", "\\N"],
            ["drift", "income", "default", NOW.isoformat(), "1.0", "\\N"],
        ],
        [],
    )


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "+02:00", "Nowhere/Zone"])
def test_timestamps_of_arrow(unit: str, zone: str) -> None:
    type_ = pa.timestamp(unit, zone)
    assert moments(table(timestamp=pa.array(list(HOURS.to_pydatetime()), type_))) == [FIRST, SECOND]
    assert moments(table(timestamp=pa.array(list(HOURS), type_).dictionary_encode())) == [FIRST, SECOND]
    # Cut off, as pandas' are; null is no timestamp.
    assert moments(table(timestamp=pa.array([-1, None], type_)))[1] == NOW.isoformat()
    assert moments(table(timestamp=pa.array([-1, None], type_)))[0].startswith("1969-12-31T23:59:59")
    naive = copied(table(timestamp=pa.array([-1, 1], pa.timestamp(unit))))[1]
    assert [each.reason.endswith("has no time zone") for each in naive] == [True, True]


@pytest.mark.parametrize("type_", [pa.timestamp("s", "UTC"), pa.timestamp("ms", "UTC"), pa.date64()])
def test_a_moment_of_arrow_beyond_python_is_refused(type_: pa.DataType) -> None:
    skipped = copied(table(timestamp=pa.array([2**60, None], type_)))[1]
    assert [(each.row, each.key) for each in skipped] == [(0, "timestamp")]


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (pa.array([0.1, None], pa.float32()), ["0.10000000149011612", "\\N"]),
        (pa.array([2**53 + 1, 5]), [f"{2**53 + 1} {BEYOND}", "5.0"]),
        (pa.array([2**64 - 1, 5], pa.uint64()), [f"{2**64 - 1} {BEYOND}", "5.0"]),
        (pa.array([float("nan"), 5]), ["nan is not a finite number", "5.0"]),
        (pa.array(["1", None]), ["'1' is not a number", "\\N"]),
        (pa.array([1, None], pa.duration("ns")), ["Timedelta('0 days 00:00:00.000000001') is not a number", "\\N"]),
        (pa.array([[1.0], None]), ["[1.0] is not a number", "\\N"]),
    ],
    ids=lambda column: str(getattr(column, "type", "")),
)
def test_values_of_arrow(column: pa.Array, wanted: list[str]) -> None:
    assert stored(table(metric_value=column)) == wanted


def test_metadata_of_arrow() -> None:
    map_ = pa.map_(pa.string(), pa.int64())
    for column, wanted in (
        (pa.array([{"a": [1.5, None]}, None]), ['{"a":[1.5,null]}', "\\N"]),
        (pa.array([[1, 2], []]), ["[1,2]", "[]"]),
        (pa.array([[("a", 1)], None], map_), ['{"a":1}', "\\N"]),
        (pa.array(["text", None]), ['"text"', "\\N"]),
    ):
        lines, skipped = copied(table(metadata=column))
        assert ([line[5] for line in lines], skipped) == (wanted, [])
    lines, skipped = copied(table(metadata=pa.array([[("a", 1)], [("a", 1), ("a", 2)]], map_)))
    assert [line[5] for line in lines] == ['{"a":1}']
    assert [(each.row, each.key) for each in skipped] == [(1, "metadata")]


@pytest.mark.parametrize(
    ("given", "key", "reason"),
    [
        (pl.DataFrame({"metric_type": ["a"]}), "metric_name", "is missing"),
        (table(score=[1, 2]), "score", "is not known"),
        (pa.Table.from_pandas(pd.DataFrame(TWO, index=HOURS)), "__index_level_0__", "is not known"),
        (pa.table([[1]] * 4, [*TWO, "metric_value"]), "metric_value", "is the name of several columns"),
        (pl.Series([0.5]), "rows", "Series is no table"),
        (table()["metric_value"], "rows", "ChunkedArray is no table"),
        (pl.DataFrame(TWO).with_columns(metric_value=pl.lit(1, pl.Int128)), "rows", "DataFrame is no table"),
        (pl.DataFrame(TWO).lazy(), "rows", "LazyFrame"),
        ({"metric_type": ["a"]}, "rows", "is not an iterable of mappings"),
        ({"metric_type": "a", "metric_name": "b", "metric_value": 1}, "rows", "is not an iterable of mappings"),
        ("rows", "rows", "is not an iterable of mappings"),
        (b"rows", "rows", "is not an iterable of mappings"),
        (None, "rows", "is not an iterable of mappings"),
        (7, "rows", "is not an iterable of mappings"),
        (np.array(7), "rows", "is not an iterable of mappings"),
        (dict, "rows", "is not an iterable of mappings"),
        (pl.DataFrame, "rows", "is not an iterable of mappings"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_has_no_rows_is_refused_at_once(given: Any, key: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason) as caught:
        rows_of(given)
    assert caught.value.key == key
    assert len(f"{caught.value}\n{caught.value.hint}".splitlines()) == 2


def test_a_lazy_frame_is_told_to_collect() -> None:
    with pytest.raises(InvalidValueError) as caught:
        rows_of(pl.DataFrame(TWO).lazy())
    assert "collect()" in caught.value.hint


@pytest.mark.parametrize("given", [[[1, 2]], pd.Series([0.5, 1]), np.array([0.5, 1]), pa.array([1, 2]), [None]])
def test_what_has_other_rows_is_refused_row_by_row(given: Any) -> None:
    lines, skipped = copied(given)
    assert lines == []
    assert {(each.key, each.reason.endswith("is not a mapping")) for each in skipped} == {("", True)}


def test_a_table_needs_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame(TWO)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow is not installed, and a DataFrame needs it") as caught:
        rows_of(frame)
    assert "mlops-db[arrow]" in caught.value.hint
    assert len(list(rows_of(frame.iter_rows(named=True)))) == 2


def test_a_reader_is_read_batch_by_batch_and_its_error_is_its_own() -> None:
    read = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for read in range(1, 4):  # noqa: B007  (the test reads it)
            yield table().to_batches()[0]
        raise KeyError("lost")

    rows = rows_of_table(pa.RecordBatchReader.from_batches(table().schema, batches()))
    assert read == 0
    next(rows)
    assert read == 1
    with pytest.raises(KeyError, match="lost"):
        list(rows)


def test_a_large_batch_is_taken_in_pieces() -> None:
    names = [f"m{n}" for n in range(2 * ROWS_AT_ONCE + 1)]
    frame = pl.DataFrame({"metric_type": "drift", "metric_name": names, "metric_value": 0.5})
    assert [row["metric_name"] for row in rows_of(frame)] == names


def test_nothing_is_imported_for_rows_of_dicts() -> None:
    code = "import sys; from mlops_db.storage.metrics.tables import rows_of; rows_of([{}])"
    check = f"{code}; sys.exit(bool({{'pandas', 'numpy', 'pyarrow', 'polars'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_tables_are_stored(head: Database) -> None:
    frame = pd.DataFrame(TWO, index=HOURS)
    other = pl.from_pandas(frame.reset_index(names="timestamp"))
    with DatabaseManager(head.settings) as db:
        assert db.monitoring.log_many(frame).written == 2
        assert db.monitoring.log_many(other).written == 2
        replaced = db.monitoring.log_many(other.drop("timestamp"), replace=HOURS[0].to_pydatetime())
        assert (replaced.written, replaced.replaced) == (2, 2)
        with pytest.raises(InvalidValueError, match="row 2: metric_value: nan"):
            db.monitoring.log_many(pl.concat([other, other.with_columns(metric_value=float("nan"))]))
    # A series has one value of each moment, and the error left nothing.
    assert head.query("SELECT metric_name, timestamp, metric_value FROM monitoring_metrics ORDER BY id") == [
        ("income", HOURS[1].to_pydatetime(), 1.0),
        ("income", HOURS[1].to_pydatetime(), 1.0),
        ("age", HOURS[0].to_pydatetime(), 0.5),
        ("income", HOURS[0].to_pydatetime(), 1.0),
    ]
    assert HOURS[1] - HOURS[0] == timedelta(hours=1)
