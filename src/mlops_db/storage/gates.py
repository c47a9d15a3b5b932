"""The results of gates as the evaluation has them, and as JSON that can be stored."""

from collections.abc import Mapping
from typing import Any

from mlops_db.errors import InvalidValueError
from mlops_db.storage.json_values import Path, checked_json, members, string, told

# Under this key a gate's object lists those of its fields that are no JSON numbers, and are stored as text instead.
STORED_AS_TEXT = "stored_as_text"


def checked_gates(gates: Any) -> str | None:
    """The JSON text of the results of gates: one object, with a key for each gate that ran. None stays None.

    A gate is a boolean, or an object with a boolean `passed` and fields of its own. JSON has no inf and no NaN: in a
    gate's object they become the texts "Infinity", "-Infinity" and "NaN", and its field `stored_as_text` lists them.

    Raises:
        InvalidValueError: it is no mapping, or a part of it cannot be stored; its `key` is the path of that part.
    """
    if gates is None:
        return None
    if not issubclass(type(gates), Mapping):
        raise InvalidValueError(
            "gates", f"{type(gates).__name__} is no mapping", hint="Give a dict with a key for each gate that ran."
        )
    parts = []
    for name, gate in members(gates, ("gates",)):
        path = ("gates", name)
        parts.append(f"{string(name, path)}:{_gate(gate, path)}")
    return f"{{{','.join(parts)}}}"


def _gate(gate: Any, path: Path) -> str:
    if not issubclass(type(gate), Mapping):
        return checked_json(gate, *path)
    replaced: list[str] = []
    stored = checked_json(gate, *path, not_finite=replaced)
    if not replaced:
        return stored
    fields = [field.removeprefix(f"{told(path)}.") for field in replaced]
    if STORED_AS_TEXT in gate:
        raise InvalidValueError(
            told((*path, STORED_AS_TEXT)),
            f"is where {', '.join(fields)} would be listed, which is no JSON number",
            hint="Rename that field, or give finite numbers.",
        )
    return f'{stored[:-1]},"{STORED_AS_TEXT}":{checked_json(fields, *path)}}}'
