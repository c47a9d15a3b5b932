"""What a row of monitoring_metrics may hold, checked before it is sent: a value that is refused is named by its key."""

import math
import reprlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from numbers import Real

from mlops_db.errors import InvalidValueError
from mlops_db.storage.json_values import checked_json

REQUIRED_KEYS = ("metric_type", "metric_name", "metric_value")
KEYS = frozenset((*REQUIRED_KEYS, "timestamp", "metadata", "model_name"))
DEFAULT_MODEL = "default"
MAX_CHARACTERS = {"metric_type": 100, "metric_name": 255, "model_name": 255}
# Clocks differ by minutes. A local time that is taken for UTC is up to 14 hours ahead and passes; a millisecond taken
# for a second, or a year typed wrong, does not.
MAX_AHEAD = timedelta(days=1)
MAX_EXCERPT = 300

_excerpt = reprlib.Repr()
_excerpt.maxdict = len(KEYS) + 1
_excerpt.maxstring = _excerpt.maxother = 60

HINTS = {
    "metric_type": "A metric_type is text of 1 to 100 characters, such as drift.",
    "metric_name": "A metric_name is text of 1 to 255 characters.",
    "model_name": "A model_name is text of 1 to 255 characters; without one it is `default`.",
    "metric_value": "Give a finite number; record a computation that failed with log_failure(), never as a number.",
    "timestamp": "Give an aware datetime, such as datetime.now(timezone.utc); left out, it is the time of the call.",
    "replace": "Give the moment that the values are about: a task's logical date, an aware datetime.",
    "since": "Give an aware datetime, such as datetime(2026, 1, 1, tzinfo=timezone.utc).",
    "until": "Give an aware datetime, such as datetime(2026, 1, 1, tzinfo=timezone.utc).",
    "interval": "Give a time such as timedelta(hours=1), or None if no value is expected.",
    "lower": "Give a finite number, or None for no bound.",
    "upper": "Give a finite number, or None for no bound.",
}
ROW_HINT = f"A row is a mapping with the keys {', '.join(REQUIRED_KEYS)} and at will timestamp, metadata, model_name."


class RefusedValueError(Exception):
    """A value, or a whole row, that cannot be stored; the caller adds which row it was.

    Attributes:
        key: the key whose value it is, or the path of a part of it; empty if it is the row.
        reason: why.
        hint: what to do about it.
    """

    def __init__(self, key: str, reason: str, *, hint: str | None = None) -> None:
        """Take what is refused and why; the hint is the key's own unless there is a better one."""
        super().__init__(f"{key}: {reason}" if key else reason)
        self.key = key
        self.reason = reason
        self.hint = hint or HINTS.get(key, ROW_HINT)


def checked_name(value: object, key: str) -> str:
    """The text itself, if the column `key` can hold it.

    Raises:
        RefusedValueError: it is no text, blank, too long, or holds NUL or half a surrogate pair.
    """
    if not isinstance(value, str):
        raise RefusedValueError(key, f"{excerpt(value)} is not text")
    if not value.strip():
        raise RefusedValueError(key, "is blank")
    if len(value) > MAX_CHARACTERS[key]:
        raise RefusedValueError(key, f"is {len(value)} characters long; {MAX_CHARACTERS[key]} is the most")
    if "\0" in value:
        raise RefusedValueError(key, f"{excerpt(value)} holds a NUL character, which PostgreSQL cannot store")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RefusedValueError(key, f"{excerpt(value)} holds half a surrogate pair, which is no text") from None
    return str.__str__(value)  # an enumeration of strings, or NumPy's, has a str() of its own


def checked_value(value: object, key: str = "metric_value") -> float | None:
    """The value as a finite float; None stays None. True and False are 1 and 0, NumPy's scalars are what they hold.

    Raises:
        RefusedValueError: it is no single number, or not a finite one.
    """
    if value is None:
        return None
    scalar = value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # of NumPy, PyTorch and the like
        scalar = value.item()
    # NumPy's long double has no Python counterpart: its item() is itself, and it is Real.
    if not isinstance(scalar, Real | Decimal):
        raise RefusedValueError(key, f"{excerpt(value)} is not a number")
    try:
        number = float(scalar)
    except (OverflowError, ValueError):  # an int of 400 digits; Decimal's signalling NaN
        number = math.nan
    if not math.isfinite(number):
        raise RefusedValueError(key, f"{excerpt(value)} is not a finite number")
    return number


def checked_timestamp(value: object, key: str = "timestamp") -> datetime:
    """The moment that a value is about, in UTC, in microseconds.

    Raises:
        RefusedValueError: as `checked_moment`, or it is more than a day ahead of the clock.
    """
    moment = checked_moment(value, key)
    if moment > datetime.now(timezone.utc) + MAX_AHEAD:
        raise RefusedValueError(key, f"{value} is more than a day ahead")
    return moment


def checked_moment(value: object, key: str) -> datetime:
    """The moment in UTC, in microseconds.

    Raises:
        RefusedValueError: it is no datetime, has no time zone, or is no moment between the years 1 and 9999 in UTC.
    """
    if not isinstance(value, datetime) or value != value:  # noqa: PLR0124  (pandas' NaT is a datetime, unlike itself)
        raise RefusedValueError(key, f"{excerpt(value)} is not a datetime")
    to_microseconds = getattr(value, "to_pydatetime", None)  # of pandas' Timestamp, which has nanoseconds
    moment: datetime = to_microseconds(warn=False) if to_microseconds else value
    if moment.utcoffset() is None:
        raise RefusedValueError(key, f"{value} has no time zone")
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise RefusedValueError(key, f"{value} is out of range in UTC") from None


def checked_metadata(value: object) -> str:
    """The JSON text of `value`, as PostgreSQL's jsonb takes it.

    Raises:
        RefusedValueError: it holds what JSON, or jsonb, cannot; the key says where, such as `metadata.drift[0]`.
    """
    try:
        return checked_json(value, "metadata")
    except InvalidValueError as refused:
        raise RefusedValueError(refused.key, refused.reason, hint=refused.hint) from None


def checked_interval(value: object) -> timedelta | None:
    """The time between two values; None stays None.

    Raises:
        RefusedValueError: it is no timedelta above 0.
    """
    if value is None:
        return None
    if not isinstance(value, timedelta) or not value > timedelta():
        raise RefusedValueError("interval", f"{excerpt(value)} is not a timedelta above 0")
    return value


def checked_bounds(lower: object, upper: object) -> tuple[float | None, float | None]:
    """The bounds of what is normal; None stays None.

    Raises:
        RefusedValueError: one of them is no finite number, or the lower one is above the other.
    """
    least, greatest = checked_value(lower, "lower"), checked_value(upper, "upper")
    if least is not None and greatest is not None and least > greatest:
        raise RefusedValueError("lower", f"{least} is above upper, {greatest}", hint="Are they exchanged?")
    return least, greatest


def checked_keys(keys: Iterable[object]) -> None:
    """Refuse what lacks one of the keys that a row needs, or has one that nothing is known about.

    Raises:
        RefusedValueError: naming the key.
    """
    given = list(keys)
    for required in REQUIRED_KEYS:
        if required not in given:
            raise RefusedValueError(required, "is missing", hint=ROW_HINT)
    for key in given:
        if key not in KEYS:
            name = key if isinstance(key, str) and key.isidentifier() else excerpt(key)
            raise RefusedValueError(name, "is not known", hint=ROW_HINT)


def row_refusal(row: object) -> RefusedValueError:
    """Why something that is not a mapping is no row."""
    return RefusedValueError("", f"{excerpt(row)} is not a mapping")


def excerpt(value: object) -> str:
    """`repr`, of some 300 characters at most, however large the value is."""
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        text = _excerpt.repr(value)
    except ValueError:  # Python does not write out an int of thousands of digits
        text = f"this {type(value).__name__}"
    return text if len(text) <= MAX_EXCERPT else f"{text[:MAX_EXCERPT]}..."
