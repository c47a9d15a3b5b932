"""Reads rows of metrics from a pandas DataFrame or an Arrow table. pandas is optional: nothing here imports it."""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, timezone
from typing import TYPE_CHECKING, Any, cast

from mlops_db.errors import InvalidValueError
from mlops_db.storage.arguments import excerpt
from mlops_db.storage.metrics.arrow_tables import rows_of_table
from mlops_db.storage.metrics.rows import KEYS, ROWS_AT_ONCE, check_columns

if TYPE_CHECKING:
    from pandas import DataFrame, Index, Series

# pandas' kinds of index that hold moments. Those of dates are among them: the check of the row refuses their values.
_MOMENTS = ("datetime64", "datetime", "date", "period")
_MIXED = ("mixed", "mixed-integer")
# By column, the types that pandas fills holes with. NaN as a value and NaT as a timestamp are no holes: a computation
# or a conversion that failed leaves them behind, and they are refused.
_HOLES: dict[str, tuple[str, ...]] = {"metadata": ("NAType", "NaTType"), "metric_value": ("NAType",)}


def rows_of(given: Any) -> Iterable[Any]:
    """The rows of a pandas DataFrame, of an Arrow table, or of an iterable.

    Raises:
        InvalidValueError: it has no rows, or its columns are not those of metrics.
        MissingExtraError: it is an Arrow table, and pyarrow is not installed.
    """
    # A program that has a frame has imported pandas.
    pandas = sys.modules.get("pandas")
    if isinstance(given, getattr(pandas, "DataFrame", ())):
        return _rows_of_frame(cast("DataFrame", given))
    if hasattr(type(given), "__arrow_c_stream__") and not isinstance(given, getattr(pandas, "Series", ())):
        return rows_of_table(given)
    hint = "Give a list of rows, or make a DataFrame of the columns."
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        with suppress(TypeError):  # an array without dimensions
            return iter(given)
    elif hasattr(given, "collect"):  # a lazy frame
        hint = "Give the result of its collect()."
    raise InvalidValueError("rows", f"{excerpt(given)} is not an iterable of mappings", hint=hint)


def _rows_of_frame(frame: "DataFrame") -> Iterator[Mapping[str, Any]]:
    levels = _index_columns(frame.index)
    keys = [*frame.columns, *levels.values()]
    check_columns(keys, hint="Keep one of them; reset_index(drop=True) drops the index.")
    return _iterate_rows(frame, keys, levels)


def _index_columns(index: "Index") -> dict[int, str]:
    """The column that each level of the index stands for: one of its name, or timestamp if it holds moments."""
    columns: dict[int, str] = {}
    for place, name in enumerate(index.names):
        level = index.levels[place] if index.nlevels > 1 else index
        if isinstance(name, str) and name in KEYS:
            columns[place] = name
        elif _has_moments(getattr(level, "categories", level)):
            columns[place] = "timestamp"
    return columns


def _has_moments(level: Any) -> bool:
    kind = level.inferred_type
    if kind == "interval":
        return _has_moments(level.left)
    return kind in _MOMENTS or (kind in _MIXED and any(isinstance(value, date) for value in level))


def _iterate_rows(frame: "DataFrame", keys: list[str], levels: dict[int, str]) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(frame), ROWS_AT_ONCE):
        part = frame.iloc[start : start + ROWS_AT_ONCE]
        series = [*(part[column] for column in part), *(part.index.get_level_values(n).to_series() for n in levels)]
        for row in zip(*map(_to_python, series, keys), strict=True):
            yield dict(zip(keys, row, strict=True))


def _to_python(column: "Series", key: str) -> list[Any]:
    """The column as Python's own objects."""
    try:
        if getattr(column.dtype, "tz", None) is not None:
            # At once, and in UTC: one by one takes five times as long.
            moments: list[Any] = column.dt.tz_convert(timezone.utc).array.to_pydatetime().tolist()
            return moments
        values = column.tolist()
    except Exception:  # noqa: BLE001  (one of them is beyond Python: of a year above 9999, say)
        values = [_value_at(column, place) for place in range(len(column))]
    holes = _HOLES.get(key)
    return values if holes is None else [None if _is_hole(value, holes) else value for value in values]


def _value_at(column: "Series", place: int) -> Any:
    try:
        return column.iloc[place]
    except Exception:  # noqa: BLE001  (the same, of this one)
        return column.iloc[place : place + 1].array  # an array, which the check of the row refuses by name


def _is_hole(value: object, types: tuple[str, ...]) -> bool:
    return type(value).__name__ in types or ("NaTType" in types and isinstance(value, float) and math.isnan(value))
