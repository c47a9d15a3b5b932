"""Metrics out of a pandas DataFrame, or a table that Arrow knows. pandas is optional: nothing here imports it."""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, timezone
from typing import TYPE_CHECKING, Any, cast

from mlops_db.errors import InvalidValueError
from mlops_db.storage.metric_arrow import rows_of_table
from mlops_db.storage.metric_rows import KEYS, ROWS_AT_ONCE, checked_columns
from mlops_db.storage.values import excerpt

if TYPE_CHECKING:
    from pandas import DataFrame, Index, Series


def rows_of(given: Any) -> Iterable[Any]:
    """The rows of what `log_many` was given: of a pandas DataFrame, of a table that Arrow knows, or its own items.

    Raises:
        InvalidValueError: it is nothing that has rows, or its columns are not those of metrics.
        MissingExtraError: it is a table, and pyarrow is not installed.
    """
    # Who has a frame has imported pandas; nobody else needs it.
    pandas = sys.modules.get("pandas")
    if isinstance(given, getattr(pandas, "DataFrame", ())):
        return _rows_of_frame(cast("DataFrame", given))
    if hasattr(type(given), "__arrow_c_stream__") and not isinstance(given, getattr(pandas, "Series", ())):
        return rows_of_table(given)
    hint = "Give a list of rows; of columns make a DataFrame."
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        with suppress(TypeError):  # an array without dimensions
            return iter(given)
    elif hasattr(given, "collect"):  # a lazy frame
        hint = "Give the result of its collect()."
    raise InvalidValueError("rows", f"{excerpt(given)} is not an iterable of mappings", hint=hint)


def _rows_of_frame(frame: "DataFrame") -> Iterator[Mapping[str, Any]]:
    """The rows, made some thousand at a time, with what the index has of them."""
    levels = _levels(frame.index)
    columns = list(frame.columns)
    checked_columns([*columns, *levels.values()], hint="Keep one of them; reset_index(drop=True) drops the index.")
    return _rows(frame, columns, levels)


def _levels(index: "Index") -> dict[int, str]:
    """The levels of the index that are columns: by a key's name, or because they hold moments."""
    levels: dict[int, str] = {}
    for place, name in enumerate(index.names):
        level = index.levels[place] if index.nlevels > 1 else index
        if isinstance(name, str) and name in KEYS:
            levels[place] = name
        elif _has_moments(getattr(level, "categories", level)):
            levels[place] = "timestamp"
    return levels


def _has_moments(level: Any) -> bool:
    kind = level.inferred_type
    if kind == "interval":
        return _has_moments(level.left)
    return kind in _MOMENTS or (kind in _MIXED and any(isinstance(value, date) for value in level))


def _rows(frame: "DataFrame", columns: list[str], levels: dict[int, str]) -> Iterator[Mapping[str, Any]]:
    keys = [*columns, *levels.values()]
    for start in range(0, len(frame), ROWS_AT_ONCE):
        part = frame.iloc[start : start + ROWS_AT_ONCE]
        series = [*(part[column] for column in columns), *(part.index.get_level_values(n).to_series() for n in levels)]
        for row in zip(*map(_values, series, keys), strict=True):
            yield dict(zip(keys, row, strict=True))


# What pandas calls the values of an index that says when. Those that are no moments, such as dates, are refused.
_MOMENTS = ("datetime64", "datetime", "date", "period")
_MIXED = ("mixed", "mixed-integer")
# What pandas fills holes with, by the columns that may have some. NaN as a value and NaT as a timestamp are no holes:
# they are what a computation or a conversion that failed leaves behind, and are refused.
_HOLES: dict[str, tuple[str, ...]] = {"metadata": ("NAType", "NaTType"), "metric_value": ("NAType",)}


def _values(column: "Series", key: str) -> list[Any]:
    """The column as Python's own objects."""
    try:
        if getattr(column.dtype, "tz", None) is not None:
            # At once, and in UTC: one by one takes five times as long.
            moments: list[Any] = column.dt.tz_convert(timezone.utc).array.to_pydatetime().tolist()
            return moments
        values = column.tolist()
    except Exception:  # noqa: BLE001  (one of them is beyond Python: of a year above 9999, say)
        values = [_value(column, place) for place in range(len(column))]
    holes = _HOLES.get(key)
    return values if holes is None else [None if _is_hole(value, holes) else value for value in values]


def _value(column: "Series", place: int) -> Any:
    try:
        return column.iloc[place]
    except Exception:  # noqa: BLE001  (the same, of this one)
        return column.iloc[place : place + 1].array  # which is refused by name where the row is checked


def _is_hole(value: object, types: tuple[str, ...]) -> bool:
    return type(value).__name__ in types or ("NaTType" in types and isinstance(value, float) and math.isnan(value))
