"""Encodes values as JSON that a jsonb column returns equal; refuses a value that cannot be stored, by its path.

Python's own encoder writes NaN, which is no JSON, and turns keys that are no text into text. It does not refuse NUL
characters and half surrogates either, which jsonb cannot hold (PostgreSQL manual, 8.14).
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
from mlops_db.storage.arguments import excerpt
from mlops_db.storage.foreign_scalars import MISSING, unwrap

# From here on a float's repr has an exponent and no decimal point; jsonb would return an integer, digit by digit, which
# is not the float's exact value.
_EXPONENT_FROM = 1e16
MAX_DEPTH = 100  # which Python can read back wherever it is called from
MAX_KEY_SHOWN = 60
_TEXT_ONLY = frozenset({str})
_CONSTANTS = {None: "null", True: "true", False: "false"}
HINT = "Leave it out, give None, or write it as text."
# Methods of types that JSON does not have: the hint names the first one that a value has.
_OF_MANY = ("tolist", "to_list", "to_pylist", "to_dicts", "to_dict")
_OF_ONE = ("model_dump", "isoformat", "total_seconds", "hex")
# The argument's name, and the keys and places on the way to a value. It is formatted only when a value is refused.
Path = tuple[Any, ...]


def encode_json(value: Any, *path: Any, not_finite: list[str] | None = None) -> str:
    """The JSON text of `value`, which jsonb returns equal.

    Args:
        value: made of dicts with text keys, lists, tuples, text, numbers, booleans and None; scalars of NumPy, PyTorch,
            Arrow and the like count as the Python values that they hold.
        path: the value's name in messages, such as `metadata`, and the keys on the way to it.
        not_finite: None refuses inf and NaN. A list gets their paths, and they become the texts "Infinity", "-Infinity"
            and "NaN".

    Raises:
        InvalidValueError: a part of it is no JSON, or cannot be stored in jsonb; the message has its path.
    """
    return _encode(value, path, not_finite)


def format_path(path: Path) -> str:
    """A path as one line of text, with long keys cut."""
    first, *others = path
    return "".join([first, *(f"[{part}]" if isinstance(part, int) else f".{_shorten(part)}" for part in others)])


def _shorten(key: str) -> str:
    shown = key if key.isidentifier() and key.isascii() else ascii(key)
    return f"{shown[:MAX_KEY_SHOWN]}{'...' if len(shown) > MAX_KEY_SHOWN else ''}"


def iterate_members(value: Mapping[Any, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """The keys of a mapping, each as plain text, with their values.

    Raises:
        InvalidValueError: a key is no text, or there twice, or the mapping cannot be read.
    """
    try:
        pairs = [(key, item) for key, item in value.items()]
    except Exception as error:  # noqa: BLE001  (a foreign mapping may raise anything)
        raise _refusal(path, f"cannot be read: {excerpt(error)}") from None
    names = set()
    for key, item in pairs:
        if not issubclass(type(key), str):
            raise _refusal(path, f"has a key that is no text: {excerpt(key)}")
        name = str.__str__(key)
        if name in names:
            raise _refusal((*path, name), "is there twice")
        names.add(name)
        yield name, item


def _encode(value: Any, path: Path, not_finite: list[str] | None) -> str:
    kind = type(value)
    if issubclass(kind, str):
        return encode_string(value if kind is str else str.__str__(value), path)
    if value is None or value is True or value is False:
        return _CONSTANTS[value]
    if issubclass(kind, float):
        return _encode_float(float.__float__(value), path, not_finite)
    if issubclass(kind, int):
        try:
            return int.__repr__(value)
        except ValueError:  # Python's limit on digits is far below that of numeric, and far above any use
            raise _refusal(path, "is a number with too many digits") from None
    scalar = value if kind is dict or kind is list else unwrap(value)
    if type(scalar) is not kind:
        return _encode(scalar, path, not_finite)
    if not issubclass(kind, Mapping | list | tuple):
        hint = _alternative_to(value)
        raise _refusal(path, f"is of type {kind.__name__}, which JSON does not have", hint=hint)
    if len(path) > MAX_DEPTH:
        raise _refusal(path[:3], f"is nested more than {MAX_DEPTH} deep, or contains itself")
    encode = _encode_object if issubclass(kind, Mapping) else _encode_array
    return encode(value, path, not_finite)


def _encode_object(value: Mapping[Any, Any], path: Path, not_finite: list[str] | None) -> str:
    plain = type(value) is dict and _TEXT_ONLY.issuperset(map(type, value))
    items: Iterable[tuple[str, Any]] = value.items() if plain else iterate_members(value, path)
    parts = []
    for key, item in items:
        place = (*path, key)
        parts.append(f"{encode_string(key, place)}:{_encode(item, place, not_finite)}")
    return f"{{{','.join(parts)}}}"


def _encode_array(value: Iterable[Any], path: Path, not_finite: list[str] | None) -> str:
    try:
        items = list(value)
    except Exception as error:  # noqa: BLE001  (a foreign list may raise anything)
        raise _refusal(path, f"cannot be read: {excerpt(error)}") from None
    return f"[{','.join([_encode(item, (*path, place), not_finite) for place, item in enumerate(items)])}]"


def encode_string(value: str, path: Path) -> str:
    """The JSON text of a text.

    Raises:
        InvalidValueError: it holds NUL or half a surrogate pair.
    """
    if "\0" in value:
        raise _refusal(path, "has a NUL character, which PostgreSQL cannot hold")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refusal(path, "has half a surrogate pair, which is no text") from None
    encoded: str = encode_basestring(value)
    return encoded


def _encode_float(value: float, path: Path, not_finite: list[str] | None) -> str:
    if math.isfinite(value):
        return f"{value:.1f}" if abs(value) >= _EXPONENT_FROM else repr(value)
    if not_finite is None:
        raise _refusal(path, f"is {value}, which JSON does not have")
    not_finite.append(format_path(path))
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _alternative_to(value: Any) -> str:
    """The hint for a value whose type JSON does not have."""
    kind = type(value)
    if issubclass(kind, Enum):
        return "Give its .value."
    if dataclasses.is_dataclass(kind):
        return "Give dataclasses.asdict() of it."
    if issubclass(kind, set | frozenset):
        return "Give a list."
    if issubclass(kind, Decimal | Fraction):
        return "Give float() or str() of it."
    methods = () if kind.__name__ in MISSING else (*_OF_MANY, *_OF_ONE) if hasattr(kind, "__len__") else _OF_ONE
    found = [method for method in methods if callable(getattr(kind, method, None))]
    return f"Give its .{found[0]}()." if found else HINT


def _refusal(path: Path, reason: str, *, hint: str = HINT) -> InvalidValueError:
    return InvalidValueError(format_path(path), reason, hint=hint)
