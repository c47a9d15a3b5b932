"""Numbers and lengths of time as people read them."""

from datetime import timedelta

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_ROUGHLY_FROM = 10
_DIGITS = 4
_ALL_DIGITS = 17


def length_in_words(length: timedelta) -> str:
    """A length of time in its largest unit, such as `22 days`; below ten of it also in the next: `1 day 6 hours`."""
    rest = abs(int(length.total_seconds()))
    for place, (unit, seconds) in enumerate(_UNITS):
        count, rest = divmod(rest, seconds)
        if count:
            words = _counted(count, unit)
            if count < _ROUGHLY_FROM and rest and (finer := rest // _UNITS[place + 1][1]):
                words += f" {_counted(finer, _UNITS[place + 1][0])}"
            return words
    return "0 seconds"


def compared(value: float, bound: float) -> str:
    """A value beside its bound, such as `0.31 > 0.1`, with as many digits as tell them apart."""
    sign = "<" if value < bound else ">" if value > bound else "="
    for digits in range(_DIGITS, _ALL_DIGITS + 1):
        texts = f"{value:.{digits}g}", f"{bound:.{digits}g}"
        if texts[0] != texts[1] or value == bound:
            break
    return f" {sign} ".join(texts)


def _counted(count: int, unit: str) -> str:
    return f"{count:,} {unit}{'' if count == 1 else 's'}"
