"""A report in whatever form it is at hand, as one document of what JSON has: mappings, lists, texts and numbers.

Live reports hold enumerations, NumPy's scalars and labels that are numbers; saved ones hold their texts. What reads the
document sees no difference.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

from mlops_db.errors import AdapterError
from mlops_db.storage.arguments import excerpt
from mlops_db.storage.foreign_scalars import unwrap

HINT = (
    "Give what Report(...).run(current, reference) returns, its .dict(), its .json() as text that begins with {, or "
    "the path of a file with its .json() or .dumps(). Of a Report or a TestSuite of Evidently 0.3 to "
    "0.6, give the .as_dict() or the .json() after its .run(...)."
)


def read_document(report: object) -> dict[str, Any]:
    """The document of a report: a snapshot, a mapping, JSON as text or bytes, or the path of a file with JSON.

    Raises:
        AdapterError: it is none of them, or cannot be read.
    """
    if hasattr(report, "dumps") and hasattr(report, "dict"):  # a Snapshot; a Report has not both
        document = report.dict()
    elif isinstance(report, bytes) or (isinstance(report, str) and report.lstrip("\ufeff \t\r\n").startswith("{")):
        document = _parsed(report, "this JSON")
    elif isinstance(report, str | os.PathLike):
        document = _parsed(_content(report), f"the file {os.fspath(report)}")
    else:
        document = report
    if not isinstance(document, Mapping):
        raise AdapterError(f"this {type(document).__name__} is not what a report of Evidently measured", hint=HINT)
    if not document:
        raise AdapterError("an empty document is not what a report of Evidently measured", hint=HINT)
    try:
        return {key_text(key): plain(part) for key, part in document.items()}
    except RecursionError:
        raise AdapterError("a document that deep is not what a report of Evidently measured", hint=HINT) from None


def key_text(key: object) -> str:
    """The text that JSON has for a key, such as a label."""
    label = plain(key)
    return label if isinstance(label, str) else json.dumps(label)


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise AdapterError(f"no report can be read from {excerpt(os.fspath(path))}: {reason}", hint=HINT) from None


def _parsed(text: str | bytes, source: str) -> Any:
    start = text[:100].lstrip()
    if start[:1] in ("<", b"<"):
        raise AdapterError(
            f"{source} is HTML, in which nothing but drawings of a report is left",
            hint="Save the report with snapshot.save_json(path), too, and give that file.",
        )
    try:
        return json.loads(text.lstrip("\ufeff") if isinstance(text, str) else text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise AdapterError(f"{source} cannot be read as JSON: {str(error)[:200]}", hint=HINT) from None


def plain(value: Any) -> Any:
    """A value as JSON has it, whatever library it is of."""
    value = unwrap(value)
    for conversion in ("tolist", "to_dict"):  # of an array or a Series; of a DataFrame, which dump_dict() holds
        if hasattr(value, conversion):
            value = getattr(value, conversion)()
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key_text(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(part) for part in value]
    if isinstance(value, date):
        return value.isoformat()
    # What a report can hold besides: a drift test or a function that somebody gave as `method=`.
    return str(getattr(value, "name", None) or getattr(value, "__name__", value))


def storable(value: Any) -> Any:
    """A plain value as PostgreSQL's jsonb takes it.

    Numbers that are none become text. NUL characters and halves of surrogate pairs are written as JSON escapes them.
    """
    if isinstance(value, Mapping):
        return {storable(key): storable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [storable(part) for part in value]
    if isinstance(value, str):
        return value.replace("\0", "\\u0000").encode(errors="backslashreplace").decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
