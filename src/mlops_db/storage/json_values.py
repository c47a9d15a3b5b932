"""JSON that a jsonb column takes and gives back equal, or a refusal that names the key.

Python's own encoder writes NaN, which is no JSON, turns keys that are no text into text, and knows nothing of what
jsonb cannot hold: NUL characters and half surrogates fail the whole statement (PostgreSQL manual, 8.14).
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from json.encoder import encode_basestring
from typing import Any

from mlops_db.errors import InvalidValueError
from mlops_db.storage.scalars import held
from mlops_db.storage.values import excerpt

# From here on a float's repr has an exponent and no decimal point; jsonb would give an integer back, digit by digit,
# which is not the float's exact value.
_EXPONENT_FROM = 1e16
# Deeper than anybody reads, and what Python can read back wherever it is called from.
MAX_DEPTH = 100
MAX_KEY_SHOWN = 60
_TEXT_ONLY = frozenset({str})
HINT = "Leave it out, give None, or write it as text."
# What has one of these has an obvious form in JSON, which is for the caller to choose.
_OF_MANY = ("tolist", "to_list", "to_pylist", "to_dicts", "to_dict")
_OF_ONE = ("model_dump", "isoformat", "total_seconds", "hex")
_OF_NONE = ("NaTType", "MaskedConstant")  # these have them, too
# Where a value is: what the whole is called, or a container's path with a key or a place in it. Written out only when
# something is refused.
Path = tuple[Any, ...]


def checked_json(value: Any, *path: Any, not_finite: list[str] | None = None) -> str:
    """The JSON text of `value`, in the form that comes back equal.

    Args:
        value: made of dicts with text keys, lists, tuples, text, numbers, booleans and None; scalars of NumPy, PyTorch,
            Arrow and the like count as the Python values that they hold.
        path: what the value is called in messages, such as `metadata`, and the keys on the way to it.
        not_finite: None refuses inf and NaN. In a list their paths are put, and the texts "Infinity", "-Infinity" and
            "NaN" take their place.

    Raises:
        InvalidValueError: something in it is no JSON, or nothing that jsonb can hold; the message has its path.
    """
    return _text(value, path, not_finite)


def told(path: Path) -> str:
    """A path as text: on one line, and each key of a length that people read, whatever it is."""
    first, *others = path
    return "".join([first, *(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in others)])


def _shown(key: str) -> str:
    shown = key if key.isidentifier() and key.isascii() else ascii(key)
    return f"{shown[:MAX_KEY_SHOWN]}{'...' if len(shown) > MAX_KEY_SHOWN else ''}"


def members(value: Mapping[Any, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """The keys of a mapping, as text that can be stored, and what they stand for.

    Raises:
        InvalidValueError: a key is no such text, or there twice, or the mapping cannot be read.
    """
    try:
        pairs = [(key, item) for key, item in value.items()]
    except Exception as error:  # noqa: BLE001  (whatever somebody's mapping raises)
        raise _unreadable(path, error) from None
    names = set()
    for key, item in pairs:
        if not issubclass(type(key), str):
            raise _refused(path, f"has a key that is no text: {excerpt(key)}")
        name = str.__str__(key)
        if name in names:
            raise _refused((*path, name), "is there twice")
        names.add(name)
        yield name, item


def _text(value: Any, path: Path, not_finite: list[str] | None) -> str:  # noqa: C901, PLR0911  (JSON has that many kinds)
    kind = type(value)
    if kind is str:
        return string(value, path)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if issubclass(kind, str):
        return string(str.__str__(value), path)
    if issubclass(kind, float):
        return _number(float.__float__(value), path, not_finite)
    if issubclass(kind, int):
        try:
            return int.__repr__(value)
        except ValueError:  # Python's limit on digits is far below that of numeric, and far above any use
            raise _refused(path, "is a number with too many digits") from None
    scalar = value if kind is dict or kind is list else held(value)
    if type(scalar) is not kind:
        return _text(scalar, path, not_finite)
    if issubclass(kind, Mapping | list | tuple):
        if len(path) > MAX_DEPTH:
            raise _refused(path[:3], f"is nested more than {MAX_DEPTH} deep, or contains itself")
        return _container(value, path, not_finite)
    raise _refused(path, f"is of type {kind.__name__}, which JSON does not have", hint=_instead_of(value))


def _container(value: Any, path: Path, not_finite: list[str] | None) -> str:
    if type(value) is dict and _TEXT_ONLY.issuperset(map(type, value)):
        items: Iterable[tuple[str, Any]] = value.items()
    elif issubclass(type(value), Mapping):
        items = members(value, path)
    else:
        try:
            values = list(value)
        except Exception as error:  # noqa: BLE001  (whatever somebody's list raises)
            raise _unreadable(path, error) from None
        return f"[{','.join([_text(item, (*path, place), not_finite) for place, item in enumerate(values)])}]"
    parts = []
    for key, item in items:
        place = (*path, key)
        parts.append(f"{string(key, place)}:{_text(item, place, not_finite)}")
    return f"{{{','.join(parts)}}}"


def string(value: str, path: Path) -> str:
    """The JSON text of a text.

    Raises:
        InvalidValueError: it holds NUL or half a surrogate pair.
    """
    if "\0" in value:
        raise _refused(path, "has a NUL character, which PostgreSQL cannot hold")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refused(path, "has half a surrogate pair, which is no text") from None
    quoted: str = encode_basestring(value)
    return quoted


def _number(value: float, path: Path, not_finite: list[str] | None) -> str:
    if math.isfinite(value):
        return f"{value:.1f}" if abs(value) >= _EXPONENT_FROM else repr(value)
    if not_finite is None:
        raise _refused(path, f"is {value}, which JSON does not have")
    not_finite.append(told(path))
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _instead_of(value: Any) -> str:
    """What to give instead of what JSON does not have."""
    kind = type(value)
    if issubclass(kind, Enum):
        return "Give its .value."
    if dataclasses.is_dataclass(kind):
        return "Give dataclasses.asdict() of it."
    if issubclass(kind, set | frozenset):
        return "Give a list."
    if issubclass(kind, Decimal | Fraction):
        return "Give float() or str() of it."
    methods = () if kind.__name__ in _OF_NONE else (*_OF_MANY, *_OF_ONE) if hasattr(kind, "__len__") else _OF_ONE
    found = [method for method in methods if callable(getattr(kind, method, None))]
    return f"Give its .{found[0]}()." if found else HINT


def _unreadable(path: Path, error: Exception) -> InvalidValueError:
    return _refused(path, f"cannot be read: {excerpt(error)}")


def _refused(path: Path, reason: str, *, hint: str = HINT) -> InvalidValueError:
    return InvalidValueError(told(path), reason, hint=hint)
