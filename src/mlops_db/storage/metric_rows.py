"""What a metric may hold, beyond what `values` says about any argument."""

from collections.abc import Iterable
from datetime import timedelta

from mlops_db.errors import InvalidValueError
from mlops_db.storage.values import excerpt, number

REQUIRED_KEYS = ("metric_type", "metric_name", "metric_value")
KEYS = frozenset((*REQUIRED_KEYS, "timestamp", "metadata", "model_name"))
MAX_CHARACTERS = {"metric_type": 100, "metric_name": 255, "model_name": 255}

VALUE_HINT = "Give a finite number; record a computation that failed with log_failure(), never as a number."
TIMESTAMP_HINT = "Give an aware datetime, such as datetime.now(timezone.utc); left out, it is the time of the call."
ROW_HINT = f"A row is a mapping with the keys {', '.join(REQUIRED_KEYS)} and at will timestamp, metadata, model_name."


def checked_keys(keys: Iterable[object]) -> None:
    """Refuse what lacks one of the keys that a row needs, or has one that nothing is known about.

    Raises:
        InvalidValueError: naming the key.
    """
    given = list(keys)
    for required in REQUIRED_KEYS:
        if required not in given:
            raise InvalidValueError(required, "is missing", hint=ROW_HINT)
    for key in given:
        if key not in KEYS:
            name = key if isinstance(key, str) and key.isidentifier() else excerpt(key)
            raise InvalidValueError(name, "is not known", hint=ROW_HINT)


def checked_interval(value: object) -> timedelta | None:
    """The time between two values; None stays None.

    Raises:
        InvalidValueError: it is no timedelta above 0.
    """
    if value is None:
        return None
    if not isinstance(value, timedelta) or not value > timedelta():
        raise InvalidValueError(
            "interval",
            f"{excerpt(value)} is not a timedelta above 0",
            hint="Give a time such as timedelta(hours=1), or None if no value is expected.",
        )
    return value


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
