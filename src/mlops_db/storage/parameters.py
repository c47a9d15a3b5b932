"""The parameters of a caller's statement, with scalars of NumPy and the like replaced by Python values.

psycopg2 takes some of those scalars for Python's own, by their base class, and writes their repr, which is no SQL.
"""

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from numbers import Real
from typing import Any

from mlops_db.errors import InvalidValueError
from mlops_db.storage.arguments import excerpt
from mlops_db.storage.foreign_scalars import MISSING
from mlops_db.storage.json_values import Path, format_path


def convert_parameters(params: Any) -> Any:
    """The parameters as psycopg2 takes them; None if there are none.

    Args:
        params: a mapping, or anything else with an order, such as a generator.

    Raises:
        InvalidValueError: they have no order, or one of them holds no value; it names which, as `params[0]`.
    """
    if params is None:
        return None
    # NumPy's arrays may have no dimension; pandas' DataFrame, which has two, iterates over the columns' names.
    if (
        isinstance(params, str | bytes | bytearray | memoryview | AbstractSet)
        or not isinstance(params, Iterable)
        or getattr(params, "ndim", 1) != 1
    ):
        raise InvalidValueError(
            "params", f"is {excerpt(params)}", hint="Give a list or tuple, such as (value,), or a dict of names."
        )
    if not isinstance(params, Mapping | list | tuple):
        params = tuple(params)
    return _convert(params, ("params",)) if params else None


def _convert(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return _convert_container(value, path)
    if type(value).__name__ not in MISSING:
        if not (hasattr(value, "dtype") and getattr(value, "ndim", None) == 0):
            return value
        plain = None if getattr(value, "mask", False) else _convert_scalar(value)
        if plain is not None:
            return plain
    raise InvalidValueError(
        format_path(path),
        f"{excerpt(value)} holds no value that a parameter can have",
        hint="Give None for NULL, or Python's own.",
    )


def _convert_scalar(scalar: Any) -> Any:
    """The Python value of a scalar; None if it holds none, or one that Python has no type for."""
    plain = scalar.item()
    kind = getattr(scalar.dtype, "kind", None)
    if kind in ("M", "m"):  # moments and times: item() is a bare number if Python does not have the unit
        if scalar.dtype.str.endswith("[ns]"):
            rounded = scalar.astype(f"{kind}8[us]")
            plain = rounded.item() if rounded == scalar else None
        return plain if isinstance(plain, date | timedelta) else None
    if hasattr(plain, "dtype") and isinstance(plain, Real):  # NumPy's longdouble may be beyond any Python float
        double = float(plain)
        return None if math.isinf(double) and double != plain else double
    return plain


def _convert_container(value: Any, path: Path) -> Any:
    """The same object if nothing in it changes, because its type may have an adapter of its own."""
    if isinstance(value, Mapping):
        named = {key: _convert(item, (*path, str(key))) for key, item in value.items()}
        return value if all(named[key] is item for key, item in value.items()) else named
    items = [_convert(item, (*path, place)) for place, item in enumerate(value)]
    if all(now is before for now, before in zip(items, value, strict=True)):
        return value
    return items if isinstance(value, list) else tuple(items)
