"""What the arguments of storage's methods may hold, checked before anything is sent."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from numbers import Real
from typing import Any

from mlops_db.errors import InvalidValueError

DEFAULT_MODEL = "default"
# The columns' lengths, in characters.
MAX_RUN_ID = MAX_MODEL_NAME = 255
MAX_VERSION = 50
# Clocks differ by minutes. A local time that is taken for UTC is up to 14 hours ahead and passes; a millisecond taken
# for a second, or a year typed wrong, does not.
MAX_AHEAD = timedelta(days=1)
MOMENT_HINT = "Give an aware datetime, such as datetime.now(timezone.utc)."
MAX_EXCERPT = 300

_excerpt = reprlib.Repr()
_excerpt.maxdict = 8
_excerpt.maxstring = _excerpt.maxother = 60


def run_id(value: object, key: str = "mlflow_run_id") -> str:
    """An MLflow run's id, or whatever the caller names its runs by: 1 to 255 characters."""
    return text(value, key, most=MAX_RUN_ID)


def name_of_model(value: object) -> str:
    """A model's name: 1 to 255 characters."""
    return text(value, "model_name", most=MAX_MODEL_NAME)


def text(value: object, key: str, *, most: int | None = None) -> str:
    """The text itself, if PostgreSQL can store it.

    Args:
        value: what the caller gave.
        key: the argument's name.
        most: the column's length in characters, for what must not be blank either; None: of any length.

    Raises:
        InvalidValueError: it is no text, blank, too long, or holds NUL or half a surrogate pair.
    """
    wanted = "Give text." if most is None else f"Give text of 1 to {most} characters."
    if not isinstance(value, str):
        raise InvalidValueError(key, f"{excerpt(value)} is not text", hint=wanted)
    if most is not None and not value.strip():
        raise InvalidValueError(key, "is blank", hint=wanted)
    if most is not None and len(value) > most:
        raise InvalidValueError(key, f"is {len(value)} characters long; {most} is the most", hint=wanted)
    if "\0" in value:
        raise InvalidValueError(key, "holds a NUL character, which PostgreSQL cannot store", hint="Take it out.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(key, "holds half a surrogate pair, which is no text", hint="Take it out.") from None
    return str.__str__(value)  # an enumeration of strings, or NumPy's, has a str() of its own


def choice(value: object, key: str, choices: Sequence[str]) -> str:
    """One of `choices`.

    Raises:
        InvalidValueError: it is another value.
    """
    if not isinstance(value, str) or value not in choices:
        raise InvalidValueError(key, f"is {excerpt(value)}", hint=f"Give {', '.join(choices[:-1])} or {choices[-1]}.")
    return str.__str__(value)


def score(value: object, key: str) -> float | None:
    """A score from 0 to 1; None stays None.

    Raises:
        InvalidValueError: it is no finite number, or not from 0 to 1.
    """
    hint = "Give a number from 0 to 1, or None if it was not measured."
    if isinstance(value, bool):
        raise InvalidValueError(key, f"{value} is no score", hint=hint)
    checked = number(value, key, hint=hint)
    if checked is not None and not 0 <= checked <= 1:
        raise InvalidValueError(key, f"{checked} is not from 0 to 1", hint=hint)
    return checked


def number(value: object, key: str, *, hint: str) -> float | None:
    """The value as a finite float; None stays None. True and False are 1 and 0, NumPy's scalars are what they hold.

    Args:
        value: what the caller gave.
        key: the argument's name.
        hint: what to give instead.

    Raises:
        InvalidValueError: it is no single number, or not a finite one.
    """
    if value is None:
        return None
    scalar = value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # of NumPy, PyTorch and the like
        scalar = value.item()
    # NumPy's long double has no Python counterpart: its item() is itself, and it is Real.
    if not isinstance(scalar, Real | Decimal):
        raise InvalidValueError(key, f"{excerpt(value)} is not a number", hint=hint)
    try:
        finite = float(scalar)
    except (OverflowError, ValueError):  # an int of 400 digits; Decimal's signalling NaN
        finite = math.nan
    if not math.isfinite(finite):
        raise InvalidValueError(key, f"{excerpt(value)} is not a finite number", hint=hint)
    return finite


def moment(value: object, key: str, *, ahead: bool, hint: str = MOMENT_HINT) -> datetime:
    """A moment in UTC, in microseconds.

    Args:
        value: what the caller gave.
        key: the argument's name.
        ahead: whether it may be more than a day ahead.
        hint: what to give instead.

    Raises:
        InvalidValueError: it is no aware datetime, or further ahead than it may be.
    """
    if not isinstance(value, datetime) or value != value:  # noqa: PLR0124  (pandas' NaT is a datetime, unlike itself)
        raise InvalidValueError(key, f"{excerpt(value)} is not a datetime", hint=hint)
    to_microseconds = getattr(value, "to_pydatetime", None)  # of pandas' Timestamp, which has nanoseconds
    exact: datetime = to_microseconds(warn=False) if to_microseconds else value
    if exact.utcoffset() is None:
        raise InvalidValueError(key, f"{exact} has no time zone", hint=hint)
    try:
        utc = exact.astimezone(timezone.utc)
    except OverflowError:
        raise InvalidValueError(key, f"{exact} is out of range in UTC", hint=hint) from None
    if not ahead and utc > datetime.now(timezone.utc) + MAX_AHEAD:
        raise InvalidValueError(key, f"{value} is more than a day ahead", hint=hint)
    return utc


# What LIMIT takes, and more than any table has.
MAX_ROWS = 2**63 - 1


def limit(value: object) -> int | None:
    """How many rows to return at most; None for all.

    Raises:
        InvalidValueError: it is no whole number from 0.
    """
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidValueError("limit", f"is {excerpt(value)}", hint="Give a whole number, or None for all.")
    return None if value is None else min(value, MAX_ROWS)


def in_utc(value: Any) -> Any:
    """A moment that was read, in UTC: psycopg2 has it in the session's time zone. Anything else stays."""
    return value.astimezone(timezone.utc) if isinstance(value, datetime) else value


def excerpt(value: object) -> str:
    """`repr`, of some 300 characters at most, however large the value is."""
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        shown = _excerpt.repr(value)
    except ValueError:  # Python does not write out an int of thousands of digits
        shown = f"this {type(value).__name__}"
    return shown if len(shown) <= MAX_EXCERPT else f"{shown[:MAX_EXCERPT]}..."
