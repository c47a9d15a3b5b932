"""Reads rows of metrics from Arrow tables: of polars, pyarrow, DuckDB and others with the PyCapsule interface."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Protocol

from mlops_db.errors import InvalidValueError, require_extra
from mlops_db.storage.metrics.rows import ROWS_AT_ONCE, check_columns

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatchReader

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class ArrowTable(Protocol):
    """A table with Arrow's PyCapsule interface, such as those of polars, pyarrow and DuckDB."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The batches, as Arrow's libraries hand them to each other."""


def rows_of_table(table: ArrowTable) -> Iterator[Mapping[str, Any]]:
    """The rows of a table that has `__arrow_c_stream__`, read batch by batch.

    Raises:
        InvalidValueError: at once, if a column is missing, not known, or there twice, or of a type that Arrow lacks.
        MissingExtraError: pyarrow is not installed.
    """
    missing = f"pyarrow is not installed, and a {type(table).__name__} needs it"
    with require_extra("arrow", missing, otherwise=", or give its rows as dicts"):
        import pyarrow as pa  # noqa: PLC0415  (optional, and slow to import)
    try:
        if isinstance(table, pa.RecordBatchReader):
            reader = table  # whose own error stays as it is
        elif isinstance(table, pa.Table):
            reader = table.to_reader()  # pyarrow before 25 crashes as it hands string views over
        else:
            reader = pa.RecordBatchReader.from_stream(table)
    except pa.ArrowException as error:
        reason = f"{type(table).__name__} is no table that Arrow can read: {str(error).partition(chr(10))[0]}"
        raise InvalidValueError("rows", reason, hint="Give a table with the columns of metrics, or a list.") from None
    check_columns(reader.schema.names)
    return _iterate_rows(reader)


def _iterate_rows(reader: "RecordBatchReader") -> Iterator[Mapping[str, Any]]:
    columns = reader.schema.names
    for batch in reader:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            part = batch.slice(start, ROWS_AT_ONCE)
            for row in zip(*map(_to_python, part.columns), strict=True):
                yield dict(zip(columns, row, strict=True))


def _to_python(column: "Array") -> list[Any]:
    """The column as Python's own objects; a value that Python cannot hold stays Arrow's, and is refused later."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        # Decoded at once: one by one takes thirty times as long.
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if pa.types.is_timestamp(plain.type):
            return _to_moments(plain)
        values: list[Any] = plain.to_pylist(maps_as_pydicts="strict")
    except Exception:  # noqa: BLE001  (of a date beyond the year 9999, a map with a key twice, a type that Arrow lacks)
        return [_value_at(column, place) for place in range(len(column))]
    return values


def _value_at(column: "Array", place: int) -> Any:
    try:
        return column[place].as_py(maps_as_pydicts="strict")
    except Exception:  # noqa: BLE001  (the same, of this one)
        return column.slice(place, 1)  # an array, which the check of the row refuses by name


def _to_moments(column: "Array") -> list[Any]:
    """The timestamps, thirty times as fast as Arrow makes them one by one."""
    epoch = _EPOCH if column.type.tz is not None else _EPOCH.replace(tzinfo=None)
    per_second = _PER_SECOND[column.type.unit]
    counts = column.view("int64").to_pylist()
    moments: dict[int | None, Any] = {None: None}
    for place, count in enumerate(counts):
        if count not in moments:
            try:
                moments[count] = epoch + timedelta(microseconds=count * 1_000_000 // per_second)
            except OverflowError:
                moments[count] = column.slice(place, 1)
    return [moments[count] for count in counts]
