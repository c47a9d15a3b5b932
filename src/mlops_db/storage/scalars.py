"""Python's own value of a scalar that a library made: NumPy's, PyTorch's, Arrow's, and the like.

No library is imported for it: a scalar is known by what it can do. Whatever cannot say what it holds stays as it is,
for the caller to refuse by name.
"""

from decimal import Decimal
from typing import Any

_PYTHONS = frozenset({type(None), bool, int, float, str, dict, list, tuple})


def held(value: object) -> Any:
    """The number, the text or the moment that `value` holds; `value` itself if it is no other library's scalar.

    Arrays and Series of any length, NumPy's masked value, dates and spans of time stay as they are.
    """
    if type(value) in _PYTHONS:
        return value
    try:
        return _held(value)
    except Exception:  # noqa: BLE001  (whatever a foreign object raises when it is asked)
        return value


def _held(value: Any) -> Any:
    if issubclass(type(value), float | int | str):
        return value
    if hasattr(value, "as_py"):  # Arrow's
        return value.as_py()
    if not hasattr(value, "item") or not _is_single(value):
        return value
    # item() of a date or a span of time is an integer where it has nanoseconds; that of a masked value is some number.
    if getattr(getattr(value, "dtype", None), "kind", None) in ("m", "M") or getattr(value, "mask", False):
        return value
    item = value.item()
    return item if issubclass(type(item), float | int | str | Decimal) else value


def _is_single(value: Any) -> bool:
    dimensions = getattr(value, "ndim", None)
    return not hasattr(type(value), "__len__") if dimensions is None else bool(dimensions == 0)
