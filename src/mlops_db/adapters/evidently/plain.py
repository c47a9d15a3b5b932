"""A report's values, live objects or read from a file, as Python's and JSON's own."""

import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any


def scalar(value: Any) -> Any:
    """A value of NumPy or pandas as Python's own."""
    value = value.value if isinstance(value, Enum) else value
    return value.tolist() if hasattr(value, "tolist") else value


def finite(value: object) -> float | None:
    """A number that a row can hold; None: it is none."""
    value = scalar(value)
    try:
        return float(value) if isinstance(value, bool | int | float) and math.isfinite(value) else None
    except OverflowError:
        return None


def text(value: object) -> str:
    """A key or a parameter in the words of JSON, whether it was saved or is a live object."""
    value = plain(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> Any:
    """What JSON takes."""
    value = scalar(value)
    if isinstance(value, Mapping):
        return {text(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(part) for part in value]
    if isinstance(value, int | float) and finite(value) is None:
        return "too large" if isinstance(value, int) else str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
