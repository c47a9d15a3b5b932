"""The parameters of a caller's statement: numpy's scalars, and those of its like, as the Python values that they hold.

psycopg2 takes some of them for Python's own, by their base class, and writes their repr, which is no SQL.
"""

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, timedelta
from numbers import Real
from typing import Any

from mlops_db.errors import InvalidValueError
from mlops_db.storage.json_values import Path, told
from mlops_db.storage.values import excerpt

# pandas' and numpy's ways to say that there is no value.
_NO_VALUE = ("NAType", "NaTType", "MaskedConstant")


def python_parameters(params: Any) -> Any:
    """The parameters as psycopg2 takes them; None if there are none.

    Args:
        params: a mapping, or anything else with an order, such as a generator.

    Raises:
        InvalidValueError: they have no order, or one of them holds no value; it names which, as `params[0]`.
    """
    if params is None:
        return None
    is_text = isinstance(params, str | bytes | bytearray | memoryview)
    # An array of numpy's may have no dimension, and pandas' DataFrame, which has two, gives its columns' names.
    if (
        is_text
        or isinstance(params, AbstractSet)
        or not isinstance(params, Iterable)
        or getattr(params, "ndim", 1) != 1
    ):
        raise InvalidValueError(
            "params", f"is {excerpt(params)}", hint="Give a list or tuple, such as (value,), or a dict of names."
        )
    if not isinstance(params, Mapping | list | tuple):
        params = tuple(params)
    return _python(params, ("params",)) if params else None


def _python(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return _container(value, path)
    if type(value).__name__ not in _NO_VALUE:
        if not (hasattr(value, "dtype") and getattr(value, "ndim", None) == 0):
            return value
        held = None if getattr(value, "mask", False) else _held(value)
        if held is not None:
            return held
    raise InvalidValueError(
        told(path),
        f"{excerpt(value)} holds no value that a parameter can have",
        hint="Give None for NULL, or Python's own.",
    )


def _held(scalar: Any) -> Any:
    """What it holds; None for nothing, and for what Python has no type for."""
    held = scalar.item()
    kind = getattr(scalar.dtype, "kind", None)
    if kind in ("M", "m"):  # numpy's moments and times: with a unit that Python does not have, item() is a bare number
        if scalar.dtype.str.endswith("[ns]"):
            exact = scalar.astype(f"{kind}8[us]")
            held = exact.item() if exact == scalar else None
        return held if isinstance(held, date | timedelta) else None
    if hasattr(held, "dtype") and isinstance(held, Real):  # numpy's longdouble, which may be beyond any of Python's
        double = float(held)
        return None if math.isinf(double) and double != held else double
    return held


def _container(value: Any, path: Path) -> Any:
    """The same object, if nothing in it is to be replaced: its type may have an adapter of its own."""
    if isinstance(value, Mapping):
        named = {key: _python(item, (*path, str(key))) for key, item in value.items()}
        return value if all(named[key] is item for key, item in value.items()) else named
    items = [_python(item, (*path, place)) for place, item in enumerate(value)]
    if all(now is before for now, before in zip(items, value, strict=True)):
        return value
    return items if isinstance(value, list) else tuple(items)
