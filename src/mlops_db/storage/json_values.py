"""JSON that a jsonb column takes and gives back equal, or a refusal that names the key.

Python's own encoder writes NaN, which is no JSON, turns keys that are no text into text, and knows nothing of what
jsonb cannot hold: NUL characters and half surrogates fail the whole statement (PostgreSQL manual, 8.14).
"""

import math
import reprlib
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from mlops_db.errors import InvalidValueError

# From here on a float's repr has an exponent and no decimal point; jsonb would give an integer back, digit by digit,
# which is not the float's exact value.
_EXPONENT_FROM = 1e16
# Deeper than anybody reads, and what Python can read back wherever it is called from.
MAX_DEPTH = 100
MAX_KEY_SHOWN = 60


def checked_json(value: Any, where: str) -> str:
    """The JSON text of `value`, in the form that comes back equal.

    Args:
        value: made of dicts with text keys, lists, tuples, text, numbers, booleans and None; numpy's scalars count as
            the Python values that they hold.
        where: what the value is called in messages, such as `metadata`.

    Raises:
        InvalidValueError: something in it is no JSON, or nothing that jsonb can hold; the message has its path.
    """
    return _text(value, where, 0)


def inner_path(path: str, key: str) -> str:
    """The path of a member: on one line, and of a length that people read, whatever the key is."""
    shown = key if key.isidentifier() and key.isascii() else ascii(key)
    return f"{path}.{shown[:MAX_KEY_SHOWN]}{'...' if len(shown) > MAX_KEY_SHOWN else ''}"


def _text(value: Any, path: str, depth: int) -> str:  # noqa: C901, PLR0911  (JSON has that many kinds)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _string(value, path)
    if isinstance(value, float):
        return _number(float(value), path)
    if isinstance(value, int):
        try:
            return str(int(value))
        except ValueError:  # Python's limit on digits is far below that of numeric, and far above any use
            raise _refused(path, "is a number with too many digits") from None
    if isinstance(value, Mapping | list | tuple):
        if depth == MAX_DEPTH:
            place = path if len(path) <= MAX_KEY_SHOWN else f"{path[:MAX_KEY_SHOWN]}..."
            raise _refused(place, f"is nested more than {MAX_DEPTH} deep, or contains itself")
        return _container(value, path, depth + 1)
    if hasattr(value, "dtype") and hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        held = value.item()  # numpy's scalars
        if not hasattr(held, "dtype"):
            return _text(held, path, depth)
    raise _refused(path, f"is of type {type(value).__name__}, which JSON does not have")


def _container(value: Any, path: str, depth: int) -> str:
    if not isinstance(value, Mapping):
        return f"[{','.join([_text(item, f'{path}[{place}]', depth) for place, item in enumerate(value)])}]"
    members = []
    for key, item in value.items():
        if not isinstance(key, str):
            raise _refused(path, f"has a key that is no text: {reprlib.repr(key)}")
        place = inner_path(path, key)
        members.append(f"{_string(key, place)}:{_text(item, place, depth)}")
    return f"{{{','.join(members)}}}"


def _string(value: str, path: str) -> str:
    if "\0" in value:
        raise _refused(path, "has a NUL character, which PostgreSQL cannot hold")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refused(path, "has half a surrogate pair, which is no text") from None
    quoted: str = encode_basestring(value)
    return quoted


def _number(value: float, path: str) -> str:
    if not math.isfinite(value):
        raise _refused(path, f"is {value}, which JSON does not have")
    return f"{value:.1f}" if abs(value) >= _EXPONENT_FROM else repr(value)


def _refused(path: str, reason: str) -> InvalidValueError:
    return InvalidValueError(path, reason, hint="Leave it out, or write it as text.")
