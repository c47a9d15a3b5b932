"""Encodes the results of gates as JSON that can be stored."""

from collections.abc import Mapping
from typing import Any

from mlops_db.errors import InvalidValueError
from mlops_db.storage.json_values import Path, encode_json, encode_string, format_path, iterate_members

# Under this key a gate's object lists those of its fields that are no JSON numbers, and are stored as text instead.
STORED_AS_TEXT = "stored_as_text"


def encode_gates(gates: Any) -> str | None:
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
    for name, gate in iterate_members(gates, ("gates",)):
        path = ("gates", name)
        parts.append(f"{encode_string(name, path)}:{_encode_gate(gate, path)}")
    return f"{{{','.join(parts)}}}"


def _encode_gate(gate: Any, path: Path) -> str:
    if not issubclass(type(gate), Mapping):
        return encode_json(gate, *path)
    not_finite: list[str] = []
    stored = encode_json(gate, *path, not_finite=not_finite)
    if not not_finite:
        return stored
    fields = [field.removeprefix(f"{format_path(path)}.") for field in not_finite]
    if STORED_AS_TEXT in gate:
        raise InvalidValueError(
            format_path((*path, STORED_AS_TEXT)),
            f"is the key under which {', '.join(fields)} would be listed, because it is no JSON number",
            hint="Rename that field, or give finite numbers.",
        )
    return f'{stored[:-1]},"{STORED_AS_TEXT}":{encode_json(fields, *path)}}}'
