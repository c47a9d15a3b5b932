"""JSON that a jsonb column takes and gives back equal, or a refusal that names the key.

Python's own encoder writes NaN, which is no JSON, turns keys that are no text into text, and knows nothing of what
jsonb cannot hold: NUL characters and half surrogates fail the whole statement (PostgreSQL manual, 8.14).
"""

import math
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from mlops_db.errors import InvalidValueError

# From here on a float's repr has an exponent and no decimal point; jsonb would give an integer back, digit by digit,
# which is not the float's exact value.
_EXPONENT_FROM = 1e16


def checked_json(value: Any, where: str) -> str:
    """The JSON text of `value`, in the form that comes back equal.

    Args:
        value: made of dicts with text keys, lists, tuples, text, numbers, booleans and None; numpy's scalars count as
            the Python values that they hold.
        where: what the value is called in messages, such as `metadata`.

    Raises:
        InvalidValueError: something in it is no JSON, or nothing that jsonb can hold; the message has its path.
    """
    try:
        return _text(value, where)
    except RecursionError:
        raise _refused(where, "is nested too deeply, or contains itself") from None


def _text(value: Any, path: str) -> str:  # noqa: C901, PLR0911, PLR0912  (JSON has that many kinds)
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
    if isinstance(value, Mapping):
        items = []
        for key, item in value.items():
            if not isinstance(key, str):
                raise _refused(path, f"has a key that is no text: {key!r}")
            items.append(f"{_string(key, f'{path}: a key')}:{_text(item, f'{path}.{key}')}")
        return f"{{{','.join(items)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join([_text(item, f'{path}[{place}]') for place, item in enumerate(value)])}]"
    if hasattr(value, "dtype") and hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        held = value.item()  # numpy's scalars
        if not hasattr(held, "dtype"):
            return _text(held, path)
    raise _refused(path, f"is of type {type(value).__name__}, which JSON does not have")


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
