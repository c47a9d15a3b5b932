"""What the arguments of `db.models` and `db.decisions` may hold, checked before anything is sent."""

import reprlib
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

from mlops_db.errors import InvalidValueError
from mlops_db.storage.metric_rows import RefusedValueError, checked_moment, checked_timestamp, checked_value

DEFAULT_MODEL = "default"
# The columns' lengths, in characters.
MAX_RUN_ID = MAX_MODEL_NAME = 255
MAX_VERSION = 50

_Checked = TypeVar("_Checked")


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
        raise InvalidValueError(key, f"{reprlib.repr(value)} is not text", hint=wanted)
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
        raise InvalidValueError(
            key, f"is {reprlib.repr(value)}", hint=f"Give {', '.join(choices[:-1])} or {choices[-1]}."
        )
    return str.__str__(value)


def score(value: object, key: str) -> float | None:
    """A score from 0 to 1; None stays None.

    Raises:
        InvalidValueError: it is no finite number, or not from 0 to 1.
    """
    hint = "Give a number from 0 to 1, or None if it was not measured."
    number = _checked(checked_value, value, key, hint)
    if number is not None and not 0 <= number <= 1:
        raise InvalidValueError(key, f"{number} is not from 0 to 1", hint=hint)
    return number


def moment(value: object, key: str, *, ahead: bool) -> datetime:
    """A moment in UTC, in microseconds.

    Args:
        value: what the caller gave.
        key: the argument's name.
        ahead: whether it may be more than a day ahead.

    Raises:
        InvalidValueError: it is no aware datetime, or further ahead than it may be.
    """
    hint = "Give an aware datetime, such as datetime.now(timezone.utc)."
    return _checked(checked_moment if ahead else checked_timestamp, value, key, hint)


def limit(value: object) -> int | None:
    """How many rows to return at most; None for all.

    Raises:
        InvalidValueError: it is no whole number from 0.
    """
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidValueError("limit", f"is {reprlib.repr(value)}", hint="Give a whole number, or None for all.")
    return value


def in_utc(value: Any) -> Any:
    """A moment that was read, in UTC: psycopg2 has it in the session's time zone. Anything else stays."""
    return value.astimezone(timezone.utc) if isinstance(value, datetime) else value


def _checked(check: Callable[[object, str], _Checked], value: Any, key: str, hint: str) -> _Checked:
    try:
        return check(value, key)
    except RefusedValueError as refused:
        raise InvalidValueError(key, refused.reason, hint=hint) from None
