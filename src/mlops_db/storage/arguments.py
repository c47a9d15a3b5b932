"""Checks of the arguments of the storage layer: each returns the value to store, before anything is sent."""

import math
import operator
import reprlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from numbers import Integral, Rational, Real
from typing import Any

from mlops_db.errors import InvalidValueError
from mlops_db.schema.limits import MAX_CHARACTERS, MAX_SCORE, MIN_SCORE
from mlops_db.storage.foreign_scalars import unwrap

# Clocks differ by minutes. A local time that is taken for UTC is up to 14 hours ahead and passes; a millisecond taken
# for a second, or a year typed wrong, does not.
MAX_AHEAD = timedelta(days=1)
MOMENT_HINT = "Give an aware datetime, such as datetime.now(timezone.utc)."
NAIVE_HINT = (
    "Give it its time zone; if it is UTC: .replace(tzinfo=timezone.utc), in pandas tz_localize('UTC'), in polars "
    "dt.replace_time_zone('UTC')."
)
TEXT_HINT = (
    "Read text with datetime.fromisoformat(text), for which Python 3.10 needs +00:00 at the end instead of Z; a column "
    "of pandas with to_datetime(texts, utc=True)."
)
MAX_EXCERPT = 300
MAX_ROWS = 2**63 - 1  # the greatest LIMIT

_excerpt = reprlib.Repr()
_excerpt.maxdict = 8
_excerpt.maxstring = _excerpt.maxother = 60


def check_name(value: object, key: str, *, column: str | None = None) -> str:
    """A text that is not blank and fits into its column.

    Args:
        value: what the caller gave.
        key: the argument's name.
        column: the column's name, if it differs from the argument's.

    Raises:
        InvalidValueError: it is no text, blank, too long, or has a character that PostgreSQL cannot store.
    """
    return check_text(value, key, most=MAX_CHARACTERS[column or key])


def check_model_version(value: object) -> str:
    """A version of a model: 1 to 50 characters. A whole number becomes its digits: MLflow's registry counts versions.

    Raises:
        InvalidValueError: it is neither, or `check_name` refuses it.
    """
    scalar = unwrap(value)
    if isinstance(scalar, int) and type(scalar) is not bool:
        try:
            value = int.__repr__(scalar)
        except ValueError:  # Python writes some thousands of digits at most
            hint = f"Give a number or text of 1 to {MAX_CHARACTERS['model_version']} characters."
            raise InvalidValueError("model_version", "is a number of thousands of digits", hint=hint) from None
    return check_name(value, "model_version")


def check_text(value: object, key: str, *, most: int | None = None) -> str:
    """A text that PostgreSQL can store.

    Args:
        value: what the caller gave: str, a subclass of it such as an enumeration of strings, or a scalar of NumPy or
            Arrow that holds text.
        key: the argument's name.
        most: the greatest length in characters; the text must not be blank then. None: any text.

    Raises:
        InvalidValueError: it is no text, blank, too long, or has NUL or half a surrogate pair.
    """
    wanted = "Give text." if most is None else f"Give text of 1 to {most} characters."
    scalar = unwrap(value)
    if not issubclass(type(scalar), str):
        raise InvalidValueError(key, f"{excerpt(value)} is not text", hint=wanted)
    given = str.__str__(scalar)  # an enumeration of strings, or NumPy's, has a str() of its own
    if most is not None and not given.strip():
        raise InvalidValueError(key, "is blank", hint=wanted)
    if most is not None and len(given) > most:
        raise InvalidValueError(key, f"is {len(given)} characters long; {most} is the most", hint=wanted)
    if "\0" in given:
        raise InvalidValueError(key, "holds a NUL character, which PostgreSQL cannot store", hint="Take it out.")
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InvalidValueError(key, "holds half a surrogate pair, which is no text", hint="Take it out.") from None
    return given


def check_choice(value: object, key: str, choices: Sequence[str]) -> str:
    """One of `choices`.

    Raises:
        InvalidValueError: it is another value.
    """
    scalar = unwrap(value)
    if not issubclass(type(scalar), str) or str.__str__(scalar) not in choices:
        raise InvalidValueError(key, f"is {excerpt(value)}", hint=f"Give {', '.join(choices[:-1])} or {choices[-1]}.")
    return str.__str__(scalar)


def check_flag(value: object, key: str) -> bool:
    """True or False. Text such as "False", as a template makes it, would count as true.

    Raises:
        InvalidValueError: it is neither.
    """
    scalar = unwrap(value)
    if type(scalar) is not bool:
        raise InvalidValueError(key, f"is {excerpt(value)}", hint="Give True or False.")
    return scalar


def check_score(value: object, key: str) -> float | None:
    """A score from 0 to 1; None stays None.

    Raises:
        InvalidValueError: it is no finite number, or not from 0 to 1.
    """
    hint = f"Give a number from {MIN_SCORE} to {MAX_SCORE}, or None if it was not measured."
    if type(unwrap(value)) is bool:
        raise InvalidValueError(key, f"{excerpt(value)} is no score", hint=hint)
    checked = check_number(value, key, hint=hint)
    if checked is not None and not MIN_SCORE <= checked <= MAX_SCORE:
        raise InvalidValueError(key, f"{checked} is not from {MIN_SCORE} to {MAX_SCORE}", hint=hint)
    return checked


def check_number(value: object, key: str, *, hint: str) -> float | None:
    """The nearest finite double of a number; None stays None.

    A narrower float keeps its exact value; a long double, Decimal or Fraction may be rounded. True and False are 1
    and 0. A scalar of NumPy, PyTorch, Arrow and the like counts as the number that it holds.

    Args:
        value: what the caller gave.
        key: the argument's name.
        hint: what to give instead.

    Raises:
        InvalidValueError: it is no single finite number, or a whole number that a double cannot hold.
    """
    scalar = unwrap(value)
    if scalar is None:
        return None
    if issubclass(type(value), Enum):
        hint = "Give its .value."
    try:
        exact = _exact(scalar)
        nearest = float(exact)
    except (OverflowError, ValueError):  # an int of 400 digits; Decimal's signalling NaN
        nearest = math.nan
    except Exception:  # noqa: BLE001  (a foreign object may raise anything)
        raise InvalidValueError(key, f"{excerpt(value)} is not a number", hint=hint) from None
    if not math.isfinite(nearest):
        raise InvalidValueError(key, f"{excerpt(value)} is not a finite number", hint=hint)
    if exact != nearest and math.trunc(exact) == exact:
        raise InvalidValueError(
            key,
            f"{excerpt(value)} is a whole number that no double holds exactly",
            hint="Give float() of it, if the nearest double will do.",
        )
    return nearest


def _exact(scalar: Any) -> float | Fraction | Decimal:
    """The number without rounding; the nearest float of a real number that has no exact form."""
    if issubclass(type(scalar), float):
        return float.__float__(scalar)
    if isinstance(scalar, Integral):
        return operator.index(scalar)  # type: ignore[arg-type,no-any-return,unused-ignore]
    if isinstance(scalar, Rational):
        return Fraction(operator.index(scalar.numerator), operator.index(scalar.denominator))
    if isinstance(scalar, Decimal):
        return Decimal(scalar)
    if isinstance(scalar, Real):
        # A long double may hold a whole number that no double does.
        ratio = getattr(scalar, "as_integer_ratio", None)
        return float(scalar) if ratio is None else Fraction(*ratio())
    raise TypeError


def check_moment(value: object, key: str, *, hint: str = MOMENT_HINT) -> datetime:
    """A moment in UTC, in microseconds; nanoseconds are cut off.

    Args:
        value: what the caller gave: an aware datetime, or a scalar that holds one.
        key: the argument's name.
        hint: what to give instead.

    Raises:
        InvalidValueError: it is no aware datetime, or out of range in UTC.
    """
    given = unwrap(value)
    # pandas' NaT is a datetime that is not equal to itself.
    if not issubclass(type(given), datetime) or given != given:  # noqa: PLR0124
        if type(given).__name__ == "datetime64":
            hint = 'It has no time zone; if it is UTC: .astype("datetime64[us]").item().replace(tzinfo=timezone.utc).'
        elif issubclass(type(given), str):
            hint = TEXT_HINT
        raise InvalidValueError(key, f"{excerpt(value)} is not a datetime", hint=hint)
    try:
        to_microseconds = getattr(given, "to_pydatetime", None)  # of pandas' Timestamp, which has nanoseconds
        exact: datetime = to_microseconds(warn=False) if to_microseconds else given
        utc = None if exact.utcoffset() is None else exact.astimezone(timezone.utc)
    except OverflowError:
        raise InvalidValueError(key, f"{excerpt(value)} is out of range in UTC", hint=hint) from None
    except Exception as error:  # noqa: BLE001  (a foreign time zone may raise anything)
        reason = f"{excerpt(value)} cannot be converted to UTC: {excerpt(error)}"
        raise InvalidValueError(key, reason, hint=hint) from None
    if utc is None:
        raise InvalidValueError(key, f"{exact} has no time zone", hint=NAIVE_HINT)
    # Subclasses, such as pendulum's, have methods of their own.
    plain = type(utc) is datetime
    return utc if plain else datetime.combine(datetime.date(utc), datetime.time(utc), timezone.utc)


def refuse_future(moment: datetime, now: datetime, key: str, *, hint: str = MOMENT_HINT) -> None:
    """Refuse a moment that is more than a day ahead.

    Args:
        moment: what the caller gave, aware.
        now: the time by the server's clock, in UTC. This machine's clock may be wrong.
        key: the argument's name.
        hint: what to give instead.

    Raises:
        InvalidValueError: it is more than a day ahead.
    """
    if moment - now > MAX_AHEAD:
        clock = now.isoformat(sep=" ", timespec="seconds")
        raise InvalidValueError(key, f"{moment} is more than a day ahead of the server's clock, {clock}", hint=hint)


def check_limit(value: object) -> int | None:
    """The greatest number of rows to return; None for all.

    Raises:
        InvalidValueError: it is no whole number from 0.
    """
    scalar = unwrap(value)
    if scalar is None:
        return None
    whole = int.__index__(scalar) if issubclass(type(scalar), int) and type(scalar) is not bool else -1
    if whole < 0:
        raise InvalidValueError("limit", f"is {excerpt(value)}", hint="Give a whole number, or None for all.")
    return min(whole, MAX_ROWS)


def excerpt(value: object) -> str:
    """`repr` on one line, cut to some 300 characters, however large the value is."""
    try:
        shown = " ".join(_excerpt.repr(dict(value) if isinstance(value, Mapping) else value).splitlines())
    except Exception:  # noqa: BLE001  (an int of thousands of digits; a mapping that cannot be read)
        shown = f"this {type(value).__name__}"
    return shown if len(shown) <= MAX_EXCERPT else f"{shown[:MAX_EXCERPT]}..."
