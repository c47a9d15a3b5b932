"""Metrics out of a pandas DataFrame. pandas is optional: nothing here imports it."""

import sys
from collections.abc import Iterator, Mapping
from datetime import timezone
from typing import TYPE_CHECKING, Any, TypeGuard

from mlops_db.errors import InvalidValueError
from mlops_db.storage.metric_rows import checked_keys

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ROWS_AT_ONCE = 5_000


def is_frame(rows: object) -> "TypeGuard[DataFrame]":
    """Whether it is a pandas DataFrame; who has none has not imported pandas, and neither do we."""
    return isinstance(rows, getattr(sys.modules.get("pandas"), "DataFrame", ()))


def rows_of_frame(frame: "DataFrame") -> Iterator[Mapping[str, Any]]:
    """The rows, made some thousand at a time. The index is left out.

    Raises:
        InvalidValueError: at once, if a column is missing, not known, or there twice.
    """
    columns = list(frame.columns)
    checked_keys(columns)
    for column in columns:
        if columns.count(column) > 1:
            raise InvalidValueError(column, "is the name of several columns", hint="Keep one of them.")
    return _rows(frame, columns)


def _rows(frame: "DataFrame", columns: list[str]) -> Iterator[Mapping[str, Any]]:
    for start in range(0, len(frame), ROWS_AT_ONCE):
        part = frame.iloc[start : start + ROWS_AT_ONCE]
        for row in zip(*(_values(part[column]) for column in columns), strict=True):
            yield dict(zip(columns, row, strict=True))


# What pandas fills holes with, by the columns that may have some. NaN as a value and NaT as a timestamp are no holes:
# they are what a computation or a conversion that failed leaves behind, and are refused.
_HOLES = {"metadata": {"float", "NAType", "NaTType"}, "metric_value": {"NAType"}}


def _values(column: "Series") -> list[Any]:
    """The column as Python's own objects."""
    if getattr(column.dtype, "tz", None) is not None:
        # At once, and in UTC: one by one takes five times as long.
        moments: list[Any] = column.dt.tz_convert(timezone.utc).array.to_pydatetime().tolist()
        return moments
    values: list[Any] = column.tolist()
    holes = _HOLES.get(column.name)
    if holes is None:
        return values
    # A hole is not equal to itself, or says neither: NA != NA is NA.
    return [None if type(value).__name__ in holes and (value != value) is not False else value for value in values]  # noqa: PLR0124
