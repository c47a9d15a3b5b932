"""Numbers, times and names as the page shows them."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from mlops_db.errors import printable

_ROUNDED_FROM, _EXPONENT_FROM, _EXPONENT_BELOW = 1e4, 1e15, 1e-4
_INVISIBLE = "\u200b"
# Vega keeps rows under their labels in JavaScript's objects, which have these already.
_TAKEN = (
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
    "__proto__",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
)


def number(value: float | None) -> str:
    """A number with four digits, such as `0.6812`, `22,004` or `1e+308`; empty for None."""
    if value is None:
        return ""
    size = abs(value)
    if size >= _EXPONENT_FROM or 0 < size < _EXPONENT_BELOW:
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= _ROUNDED_FROM else f"{value:.4g}"


def signed(value: float | None) -> str:
    """A difference with its sign, such as `+0.0222`; empty for None."""
    return "" if value is None else f"{value:+.4f}".replace("-", "\u2212")


def moment(at: datetime | None) -> str:
    """A time in UTC, to the minute; empty for None."""
    return "" if at is None else f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M}"


def milliseconds(seconds: float) -> int:
    """A time as the charts take it."""
    return round(seconds * 1000)


def apart(labels: Iterable[str]) -> Iterator[str]:
    """The labels, with invisible characters after those that were there before: a chart joins rows of one label."""
    seen = set(_TAKEN)
    for given in labels:
        label = printable(given)
        while label in seen:
            label += _INVISIBLE
        seen.add(label)
        yield label
