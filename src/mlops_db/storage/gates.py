"""The results of gates as the evaluation has them, and as JSON that can be stored."""

import math
from collections.abc import Mapping
from typing import Any

from mlops_db.errors import InvalidValueError
from mlops_db.storage.json_values import MAX_DEPTH, checked_json, inner_path

# Under this key a gate's object lists those of its fields that are no JSON numbers, and are stored as text instead.
STORED_AS_TEXT = "stored_as_text"


def checked_gates(gates: object) -> str | None:
    """The JSON text of the results of gates: one object, with a key for each gate that ran. None stays None.

    A gate is a boolean, or an object with a boolean `passed` and fields of its own. JSON has no inf and no NaN: in a
    gate's object they become the texts "Infinity", "-Infinity" and "NaN", and its field `stored_as_text` lists them.

    Raises:
        InvalidValueError: it is no mapping, or a part of it cannot be stored; its `key` is the path of that part.
    """
    if gates is None:
        return None
    if not isinstance(gates, Mapping):
        raise InvalidValueError(
            "gates", f"{type(gates).__name__} is no mapping", hint="Give a dict with a key for each gate that ran."
        )
    return checked_json({name: _finite_gate(name, gate) for name, gate in gates.items()}, "gates")


def _finite_gate(name: object, gate: Any) -> Any:
    if not isinstance(gate, Mapping):
        return gate
    replaced: list[str] = []
    finite = _finite(gate, "", replaced, 0)
    if not replaced:
        return gate
    if STORED_AS_TEXT in gate:
        raise InvalidValueError(
            inner_path(inner_path("gates", str(name)), STORED_AS_TEXT),
            f"is where {', '.join(replaced)} would be listed, which is no JSON number",
            hint="Rename that field, or give finite numbers.",
        )
    return {**finite, STORED_AS_TEXT: replaced}


def _finite(value: Any, path: str, replaced: list[str], depth: int) -> Any:
    """Put text in the place of inf and NaN, and add their paths to `replaced`."""
    if depth > MAX_DEPTH:
        return value  # which is refused when it is written
    if isinstance(value, Mapping):
        return {
            key: _finite(item, inner_path(path, str(key)).removeprefix("."), replaced, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_finite(item, f"{path}[{place}]", replaced, depth + 1) for place, item in enumerate(value)]
    number = value.item() if hasattr(value, "dtype") and getattr(value, "ndim", 0) == 0 else value
    if not isinstance(number, float) or math.isfinite(number):
        return value
    replaced.append(path)
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
