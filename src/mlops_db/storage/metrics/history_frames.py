"""Reads series as pandas DataFrames: COPY sends the rows in its binary format, and NumPy takes them as they come.

No value becomes a Python object on the way. pandas is optional: it is imported when a frame is asked for.
"""

import io
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg2.extensions

from mlops_db.errors import InvalidValueError, WaitCallbackError, require_extra
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.arguments import excerpt

if TYPE_CHECKING:
    from numpy import ndarray
    from pandas import DataFrame, DatetimeIndex, Index

Series = tuple[str, str, str]  # model_name, metric_type, metric_name
NAMES = ("model_name", "metric_type", "metric_name")

# Newest first, because LIMIT takes the newest rows; frames are reversed. NaN, which the table never has, stands for a
# missing value, as in a frame: so each row has the same width.
_FROM_SERIES = """
  FROM public.monitoring_metrics
 WHERE model_name = {model_name} AND metric_type = {metric_type} AND metric_name = {metric_name}
   AND timestamp >= %(since)s AND timestamp < %(until)s
"""
_ROWS = f"""
SELECT {{columns}} {_FROM_SERIES}
 ORDER BY timestamp DESC, id DESC LIMIT %(limit)s
"""
_VALUES = "timestamp, coalesce(metric_value, 'NaN')"
# Buckets are counted from a Monday, so that weeks begin on one. As doubles, microseconds are exact to the year 2285.
# A plain sum would fail where a double cannot hold it: large values are added up by themselves.
_BUCKETS = f"""
SELECT floor(round((date_part('epoch', timestamp) - 946857600) * 1e6) / %(width)s)::bigint AS bucket,
       coalesce(min(metric_value), 'NaN'), coalesce(max(metric_value), 'NaN'),
       coalesce(sum(metric_value) FILTER (WHERE abs(metric_value) < 1e290), 0),
       coalesce(sum(metric_value / 1e30) FILTER (WHERE abs(metric_value) >= 1e290), 0),
       count(metric_value), count(*) - count(metric_value)
  {_FROM_SERIES}
 GROUP BY bucket ORDER BY bucket DESC LIMIT %(limit)s
"""
# A subquery for each series, which the key answers in its order. A join would not do: LIMIT is for each series.
_EACH = "SELECT series.number, found.* FROM {series} CROSS JOIN LATERAL ({found}) AS found"
_GIVEN = "unnest(%(model_names)s::text[], %(metric_types)s::text[], %(metric_names)s::text[]) WITH ORDINALITY"
_NUMBERED = "(model_name, metric_type, metric_name, number)"
_AS_GIVEN = f"{_GIVEN} AS series {_NUMBERED}"
# Citus sends the subquery to several shards only from a table whose shards lie beside them.
_OF_CATALOGUE = f"""(
SELECT catalogue.model_name, catalogue.metric_type, catalogue.metric_name, given.number
  FROM mlops_internal.metric_series AS catalogue
  JOIN {_GIVEN} AS given {_NUMBERED} USING (model_name, metric_type, metric_name)
) AS series"""
_ONE = {name: f"%({name})s" for name in NAMES}
_OF_SERIES = {name: f"series.{name}" for name in NAMES}
_OF_MODEL = {**_OF_SERIES, "model_name": _ONE["model_name"]}

_POSTGRESQL_EPOCH_US = 946_684_800_000_000  # 2000-01-01, where its timestamps begin
_MONDAY_US = 946_857_600_000_000  # 2000-01-03
_VALUE_FIELDS = {"timestamp": ">i8", "metric_value": ">f8"}
_BUCKET_FIELDS = {
    "bucket": ">i8", "min": ">f8", "max": ">f8", "sum": ">f8", "large": ">f8", "count": ">i8", "failed": ">i8",
}  # fmt: skip
# Manual, "COPY", Binary Format: a header and a trailer around the rows; each row begins with the number of its fields,
# each field with its length.
_HEADER, _TRAILER = 19, 2

_UNITS = {"ms": "milliseconds", "s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=10_000)


def parse_width(every: object) -> int | None:
    """The width of a bucket in microseconds; None stays None.

    Args:
        every: a timedelta, or text such as 15min, 1h, 1d or 1w.

    Raises:
        InvalidValueError: it is neither, not above 0, or above 10,000 days.
    """
    if every is None:
        return None
    width = every
    if isinstance(every, str) and (found := re.fullmatch(r"(\d{1,6}) ?(ms|s|min|h|[dD]|[wW])", every, re.ASCII)):
        width = timedelta(**{_UNITS[found[2].lower()]: int(found[1])})
    if not isinstance(width, timedelta) or not timedelta() < width <= _LONGEST:
        raise InvalidValueError(
            "every",
            f"is {excerpt(every)}",
            hint="Give a timedelta, or a whole number with its unit: 500ms, 5s, 15min, 1h, 1d or 1w, at most 10,000 "
            "days. Months and years are of different lengths.",
        )
    return width // timedelta(microseconds=1)


def require_pandas() -> None:
    """Refuse to go on without pandas.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    with require_extra("pandas", "pandas is not installed, and a DataFrame needs it"):
        import pandas as pd  # noqa: F401, PLC0415  (optional, and slow to import)


def require_copy() -> None:
    """Refuse to go on if psycopg2 cannot COPY.

    Raises:
        WaitCallbackError: psycopg2 has a wait callback, such as gevent's.
    """
    if psycopg2.extensions.get_wait_callback() is not None:
        raise WaitCallbackError


def read_series_with_metadata(cursor: SafeCursor, parameters: Mapping[str, Any]) -> "DataFrame":
    """A series by `timestamp`, oldest first, with metric_value and metadata.

    Args:
        cursor: to read with.
        parameters: model_name, metric_type, metric_name, since, until, limit.
    """
    import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

    cursor.execute(_ROWS.format(columns="timestamp, metric_value, metadata", **_ONE), parameters)
    timestamps, values, metadata = zip(*reversed(cursor.fetchall()), strict=True) if cursor.rowcount else ((), (), ())
    return pd.DataFrame(
        {"metric_value": pd.Series(values, dtype="float64"), "metadata": pd.Series(metadata, dtype="object")}
    ).set_index(pd.DatetimeIndex(timestamps, dtype="datetime64[us, UTC]", name="timestamp"))


def read_series(cursor: SafeCursor, parameters: Mapping[str, Any]) -> "DataFrame":
    """A series by `timestamp`, oldest first: its values, or its buckets.

    Args:
        cursor: to read with.
        parameters: model_name, metric_type, metric_name, since, until, limit, and width: of buckets, None for values.
    """
    width = parameters["width"]
    query, fields = _query(width, _ONE)
    return _make_frame(_copy_rows(cursor, query, parameters, fields), width)


def read_several_series(
    cursor: SafeCursor,
    series: Sequence[Series],
    parameters: Mapping[str, Any],
    wide_by: Sequence[str] | None,
    *,
    on_citus: bool,
) -> "DataFrame":
    """Several series in one frame, by `timestamp`.

    Args:
        cursor: to read with.
        series: the series, in the order of the result.
        parameters: since, until, limit and width, as for `read_series`; they hold for each series.
        wide_by: the parts of a series' name that name its column; None for one row a value, with the name in columns.
        on_citus: whether the database has Citus.
    """
    import numpy as np  # noqa: PLC0415  (pandas brings it)
    import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

    width = parameters["width"]
    # Rows are reversed: the last series comes first.
    model_names, metric_types, metric_names = _transpose(series[::-1])
    # One model is on one shard.
    one_model = on_citus and len(set(model_names)) == 1
    found, fields = _query(width, _OF_MODEL if one_model else _OF_SERIES)
    query = _EACH.format(series=_OF_CATALOGUE if on_citus and not one_model else _AS_GIVEN, found=found)
    names = {"model_names": model_names, "metric_types": metric_types, "metric_names": metric_names}
    given = {**parameters, **names, "model_name": model_names[0] if one_model else None}
    rows = _copy_rows(cursor, query, given, {"number": ">i8", **fields})
    numbers = len(series) - rows["number"].astype("int64")
    # The series may come in another order, as from several shards; the rows of each one are in theirs.
    if (numbers[1:] < numbers[:-1]).any():
        in_order = np.argsort(numbers, kind="stable")
        rows, numbers = rows[in_order], numbers[in_order]
    frame = _make_frame(rows, width)
    if wide_by is not None:
        return _widen(frame, numbers, _column_index(series, wide_by))
    for place, (name, values) in enumerate(zip(NAMES, _transpose(series), strict=True)):
        kind = pd.Categorical(values)
        frame.insert(place, name, pd.Categorical.from_codes(kind.codes[numbers], dtype=kind.dtype))
    return frame


def _transpose(series: Sequence[Series]) -> list[list[str]]:
    return [list(part) for part in zip(*series, strict=True)] or [[], [], []]


def _query(width: int | None, names: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """The query for one series, and the types of its fields."""
    if width is None:
        return _ROWS.format(columns=_VALUES, **names), _VALUE_FIELDS
    return _BUCKETS.format(**names), _BUCKET_FIELDS


def _copy_rows(
    cursor: SafeCursor, query: str, parameters: Mapping[str, Any], fields: Mapping[str, str]
) -> "ndarray[Any, Any]":
    """The query's rows, the last one first; each field has 8 bytes and none is NULL."""
    import numpy as np  # noqa: PLC0415  (pandas brings it)

    file = io.BytesIO()
    cursor.copy_out(query, parameters, file)
    lengths_and_fields = [
        part for name, kind in fields.items() for part in ((f"length of {name}", ">i4"), (name, kind))
    ]
    row = np.dtype([("number of fields", ">i2"), *lengths_and_fields])
    return np.frombuffer(file.getbuffer()[_HEADER:-_TRAILER], row)[::-1]


def _make_frame(rows: "ndarray[Any, Any]", width: int | None) -> "DataFrame":
    import numpy as np  # noqa: PLC0415  (pandas brings it)
    import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

    if width is None:
        index = _time_index(rows["timestamp"].astype("int64") + _POSTGRESQL_EPOCH_US)
        return pd.DataFrame({"metric_value": rows["metric_value"].astype("float64")}, index)
    index = _time_index(rows["bucket"].astype("int64") * width + _MONDAY_US)
    columns = {name: rows[name].astype(kind[1:]) for name, kind in _BUCKET_FIELDS.items()}
    with np.errstate(all="ignore"):  # no value: 0 / 0
        mean = columns["sum"] / columns["count"] + columns["large"] / columns["count"] * 1e30
    columns["mean"] = mean.clip(columns["min"], columns["max"])  # rounding may exceed them
    return pd.DataFrame(columns, index)[["min", "mean", "max", "count", "failed"]]


def _time_index(microseconds: "ndarray[Any, Any]") -> "DatetimeIndex":
    import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

    return pd.DatetimeIndex(microseconds.view("datetime64[us]"), name="timestamp").tz_localize("UTC")


def _column_index(series: Sequence[Series], wide_by: Sequence[str]) -> "Index[Any]":
    import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

    parts = dict(zip(NAMES, _transpose(series), strict=True))
    if len(wide_by) == 1:
        return pd.Index(parts[wide_by[0]], name=wide_by[0], dtype=None if series else "object")
    return pd.MultiIndex.from_arrays([parts[name] for name in wide_by], names=wide_by)


def _widen(frame: "DataFrame", numbers: "ndarray[Any, Any]", columns: "Index[Any]") -> "DataFrame":
    """A row for each moment and a column for each series; several columns of the frame become the upper level."""
    import numpy as np  # noqa: PLC0415  (pandas brings it)
    import pandas as pd  # noqa: PLC0415  (optional, and slow to import)

    moments = frame.index.unique().sort_values()
    places = moments.get_indexer(frame.index)
    parts = {}
    for name, values in frame.items():
        nothing = 0 if values.dtype == np.int64 else np.nan
        grid = np.full((len(moments), len(columns)), nothing, values.dtype)
        grid[places, numbers] = values  # of several at one moment the last one stays, which is the newest
        parts[name] = pd.DataFrame(grid, moments, columns)
    return pd.concat(parts, axis="columns", names=["statistic"]) if len(parts) > 1 else parts["metric_value"]
