"""Checks a row of metrics: its keys, names and metadata, and the bounds and the interval of its series."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, cast

from mlops_db.errors import InvalidValueError
from mlops_db.schema.limits import MAX_INTERVAL
from mlops_db.storage.arguments import check_name, check_number, excerpt
from mlops_db.storage.foreign_scalars import unwrap
from mlops_db.storage.json_values import iterate_members

REQUIRED_KEYS = ("metric_type", "metric_name", "metric_value")
KEYS = frozenset((*REQUIRED_KEYS, "timestamp", "metadata", "model_name"))
ROWS_AT_ONCE = 5_000  # of a table that become mappings together
MAP_INDEX = "map_index"  # the key of metadata that names the mapped run which wrote the row

VALUE_HINT = (
    "Give a finite number, or None for no value; record a computation that failed with log_failure(), never as a "
    "number."
)
TIMESTAMP_HINT = "Give an aware datetime, such as datetime.now(timezone.utc); left out, it is the time of the call."
ROW_HINT = (
    f"A row is a mapping with the keys {', '.join(REQUIRED_KEYS)} and optionally timestamp, metadata, model_name."
)


def check_series(model_name: object, metric_type: object, metric_name: object) -> dict[str, str]:
    """The names of a series by their columns.

    Raises:
        InvalidValueError: one of them is no name; it names which.
    """
    names = {"model_name": model_name, "metric_type": metric_type, "metric_name": metric_name}
    return {key: check_name(name, key) for key, name in names.items()}


def check_filters(**names: object) -> dict[str, str]:
    """The names by which series are chosen, by their columns; None chooses all.

    Raises:
        InvalidValueError: one of them is no name; it names which.
    """
    return {key: check_name(name, key) for key, name in names.items() if name is not None}


def check_keys(keys: Iterable[object]) -> None:
    """Refuse a row that lacks a required key or has an unknown one.

    Raises:
        InvalidValueError: naming the key.
    """
    given = list(keys)
    names = [key for key in given if isinstance(key, str)]  # other objects may fail to be compared with ==
    for required in REQUIRED_KEYS:
        if required not in names:
            raise InvalidValueError(required, "is missing", hint=ROW_HINT)
    for key in given:
        if not isinstance(key, str) or key not in KEYS:
            name = key if isinstance(key, str) and key.isidentifier() else excerpt(key)
            raise InvalidValueError(name, "is not known", hint=ROW_HINT)


def check_columns(columns: Iterable[object], *, hint: str = "Keep one of them.") -> None:
    """Refuse a table whose columns are not those of metrics.

    Raises:
        InvalidValueError: naming the column that is missing, not known, or there twice.
    """
    names = list(columns)
    check_keys(names)
    for name in KEYS:
        if names.count(name) > 1:
            raise InvalidValueError(name, "is the name of several columns", hint=hint)


def copy_metadata(metadata: object, purpose: str) -> dict[str, Any]:
    """A dict with the same metadata, to which one more key can be added.

    Args:
        metadata: a mapping, or None for nothing.
        purpose: what the key will hold, for the hint.

    Raises:
        InvalidValueError: it is no mapping, or a key of it is no text.
    """
    if metadata is None:
        return {}
    if not issubclass(type(metadata), Mapping):
        hint = f"Give a dict: {purpose} becomes one more of its keys."
        raise InvalidValueError("metadata", f"{excerpt(metadata)} is no mapping", hint=hint)
    return dict(iterate_members(cast("Mapping[Any, Any]", metadata), ("metadata",)))


def add_map_index(metadata: object, map_index: int) -> dict[str, Any]:
    """A copy of the metadata with the map index of the run that writes the row.

    Args:
        metadata: a mapping, or None for nothing.
        map_index: the run's index.

    Raises:
        InvalidValueError: it is no mapping, or has another map index.
    """
    details = copy_metadata(metadata, "the map index")
    given = unwrap(details.get(MAP_INDEX, map_index))
    if type(given) is not int or given != map_index:
        reason = f"is {excerpt(given)}, but the row is of map index {map_index}"
        raise InvalidValueError(f"metadata.{MAP_INDEX}", reason, hint="Leave it out: the call sets it.")
    return {**details, MAP_INDEX: map_index}


def check_interval(value: object) -> timedelta | None:
    """The time between two values; None stays None.

    Raises:
        InvalidValueError: it is no timedelta above 0, or longer than the column takes.
    """
    scalar = unwrap(value)
    if scalar is None:
        return None
    try:
        # Without the nanoseconds of pandas' Timedelta.
        exact = timedelta(scalar.days, scalar.seconds, scalar.microseconds)
    except Exception:  # noqa: BLE001  (NaT has no days; a foreign object may raise anything)
        exact = timedelta()
    if not issubclass(type(scalar), timedelta) or not timedelta() < exact <= MAX_INTERVAL:
        raise InvalidValueError(
            "interval",
            f"{excerpt(value)} is not a timedelta above 0, and of {MAX_INTERVAL.days:,} days at most",
            hint="Give a time such as timedelta(hours=1), or None if no value is expected.",
        )
    return exact


def check_bounds(lower: object, upper: object) -> tuple[float | None, float | None]:
    """The bounds of what is normal; None stays None.

    Raises:
        InvalidValueError: one of them is no finite number, or the lower one is above the other.
    """
    hint = "Give a finite number, or None for no bound."
    least, greatest = check_number(lower, "lower", hint=hint), check_number(upper, "upper", hint=hint)
    if least is not None and greatest is not None and least > greatest:
        raise InvalidValueError("lower", f"{least} is above upper, {greatest}", hint="Swap lower and upper.")
    return least, greatest
