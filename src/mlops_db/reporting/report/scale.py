"""The axis of values of a chart."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# The difference of two numbers below it is a number, too.
LARGEST = 8e307
_MARGIN = 0.06
_THOUSANDS_FROM, _EXPONENT_FROM, _EXPONENT_BELOW = 1e4, 1e15, 1e-3
# A bound that is further away would press the values into a line.
_REACH = 6


@dataclass(frozen=True)
class ValueScale:
    """Where the axis begins and ends.

    Attributes:
        least: its beginning.
        greatest: its end.
    """

    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float], bounds: Iterable[float | None] = ()) -> "ValueScale":
        """The scale of some values, and of those bounds that are not far from them."""
        kept = [_limited(value) for value in values]
        least, greatest = min(kept, default=0.0), max(kept, default=1.0)
        reach = _REACH * (greatest / 2 - least / 2) * 2 or abs(greatest) or 1.0
        for bound in bounds:
            if bound is not None and least / 2 - reach / 2 <= _limited(bound) / 2 <= greatest / 2 + reach / 2:
                least, greatest = min(least, _limited(bound)), max(greatest, _limited(bound))
        margin = _MARGIN * (greatest / 2 - least / 2) * 2 or abs(greatest) / 2 or 1.0
        # Most values are never negative, and their axis should not be.
        beginning = least - margin if least < 0 else max(0.0, least - margin)
        return cls(_limited(beginning), _limited(greatest + margin))

    @property
    def values(self) -> dict[str, Any]:
        """The parameters of a chart."""
        size = max(abs(self.least), abs(self.greatest))
        numbers = ",.4~g"
        if size >= _EXPONENT_FROM or 0 < size < _EXPONENT_BELOW:
            numbers = ".2~e"
        elif size >= _THOUSANDS_FROM:
            numbers = ".3~s"
        return {"least": self.least, "greatest": self.greatest, "numbers": numbers}

    @staticmethod
    def drawn(value: float | None) -> float | None:
        """The value as a chart can place it."""
        return None if value is None else _limited(value)

    def shows(self, value: float) -> bool:
        """Whether the value is on the axis."""
        return self.least <= _limited(value) <= self.greatest


def _limited(value: float) -> float:
    return max(-LARGEST, min(LARGEST, value))
