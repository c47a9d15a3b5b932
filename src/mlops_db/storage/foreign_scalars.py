"""The Python value of a scalar of another library: NumPy's, PyTorch's, Arrow's, and the like.

A scalar is known by its methods, so that no library is imported. A scalar whose value cannot be read stays as it is, so
that the caller refuses it by name.
"""

from decimal import Decimal
from typing import Any

# The types by which pandas and NumPy mark a missing value.
MISSING = ("NAType", "NaTType", "MaskedConstant")
_PYTHONS = frozenset({type(None), bool, int, float, str, dict, list, tuple})


def unwrap(value: object) -> Any:
    """The number, text or moment that a scalar of another library holds; any other value stays as it is.

    Arrays and Series of any length, NumPy's masked value, dates and spans of time stay as they are.
    """
    if type(value) in _PYTHONS:
        return value
    try:
        return _unwrap(value)
    except Exception:  # noqa: BLE001  (a foreign object may raise anything)
        return value


def _unwrap(value: Any) -> Any:
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
