"""What a metric may hold, beyond what `values` says about any argument."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, cast

from mlops_db.errors import InvalidValueError
from mlops_db.storage.json_values import members
from mlops_db.storage.scalars import held
from mlops_db.storage.values import excerpt, number

REQUIRED_KEYS = ("metric_type", "metric_name", "metric_value")
KEYS = frozenset((*REQUIRED_KEYS, "timestamp", "metadata", "model_name"))
ROWS_AT_ONCE = 5_000  # of a table that become mappings together
MAX_INTERVAL = timedelta(days=360_000)  # 1,000 years, as PostgreSQL compares them: of 360 days
MAP_INDEX = "map_index"  # the key of metadata that says which of several runs about one moment wrote the row
MAX_CHARACTERS = {"metric_type": 100, "metric_name": 255, "model_name": 255}

VALUE_HINT = (
    "Give a finite number, or None for no value; record a computation that failed with log_failure(), never as a "
    "number."
)
TIMESTAMP_HINT = "Give an aware datetime, such as datetime.now(timezone.utc); left out, it is the time of the call."
ROW_HINT = f"A row is a mapping with the keys {', '.join(REQUIRED_KEYS)} and at will timestamp, metadata, model_name."


def checked_keys(keys: Iterable[object]) -> None:
    """Refuse what lacks one of the keys that a row needs, or has one that nothing is known about.

    Raises:
        InvalidValueError: naming the key.
    """
    given = list(keys)
    names = [key for key in given if isinstance(key, str)]  # what else a key may be need not have an answer to ==
    for required in REQUIRED_KEYS:
        if required not in names:
            raise InvalidValueError(required, "is missing", hint=ROW_HINT)
    for key in given:
        if not isinstance(key, str) or key not in KEYS:
            name = key if isinstance(key, str) and key.isidentifier() else excerpt(key)
            raise InvalidValueError(name, "is not known", hint=ROW_HINT)


def checked_columns(columns: Iterable[object], *, hint: str = "Keep one of them.") -> None:
    """Refuse the columns of a table that are not those of metrics.

    Raises:
        InvalidValueError: naming the column that is missing, not known, or there twice.
    """
    names = list(columns)
    checked_keys(names)
    for name in KEYS:
        if names.count(name) > 1:
            raise InvalidValueError(name, "is the name of several columns", hint=hint)


def metadata_to_extend(metadata: object, by: str) -> dict[str, Any]:
    """Metadata as a dict that takes one more key.

    Args:
        metadata: a mapping, or None for nothing.
        by: what the key will stand for.

    Raises:
        InvalidValueError: it is no mapping, or a key of it is no text.
    """
    if metadata is None:
        return {}
    if not issubclass(type(metadata), Mapping):
        hint = f"Give a dict: {by} becomes one more of its keys."
        raise InvalidValueError("metadata", f"{excerpt(metadata)} is no mapping", hint=hint)
    return dict(members(cast("Mapping[Any, Any]", metadata), ("metadata",)))


def with_map_index(metadata: object, map_index: int) -> dict[str, Any]:
    """Metadata of a row that one of several runs wrote.

    Args:
        metadata: a mapping, or None for nothing.
        map_index: which of the runs.

    Raises:
        InvalidValueError: it is no mapping, or tells of another run.
    """
    details = metadata_to_extend(metadata, "the map index")
    given = held(details.get(MAP_INDEX, map_index))
    if type(given) is not int or given != map_index:
        reason = f"is {excerpt(given)}, but the row is of map index {map_index}"
        raise InvalidValueError(f"metadata.{MAP_INDEX}", reason, hint="Leave it out: it is set.")
    return {**details, MAP_INDEX: map_index}


def checked_interval(value: object) -> timedelta | None:
    """The time between two values; None stays None.

    Raises:
        InvalidValueError: it is no timedelta above 0, or longer than the column takes.
    """
    scalar = held(value)
    if scalar is None:
        return None
    try:
        # Without the nanoseconds of pandas' Timedelta.
        exact = timedelta(scalar.days, scalar.seconds, scalar.microseconds)
    except Exception:  # noqa: BLE001  (NaT has days that are none; whatever a foreign object raises)
        exact = timedelta()
    if not issubclass(type(scalar), timedelta) or not timedelta() < exact <= MAX_INTERVAL:
        raise InvalidValueError(
            "interval",
            f"{excerpt(value)} is not a timedelta above 0, and of 360,000 days at most",
            hint="Give a time such as timedelta(hours=1), or None if no value is expected.",
        )
    return exact


def checked_bounds(lower: object, upper: object) -> tuple[float | None, float | None]:
    """The bounds of what is normal; None stays None.

    Raises:
        InvalidValueError: one of them is no finite number, or the lower one is above the other.
    """
    hint = "Give a finite number, or None for no bound."
    least, greatest = number(lower, "lower", hint=hint), number(upper, "upper", hint=hint)
    if least is not None and greatest is not None and least > greatest:
        raise InvalidValueError("lower", f"{least} is above upper, {greatest}", hint="Are they exchanged?")
    return least, greatest
