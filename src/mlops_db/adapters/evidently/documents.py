"""Read a report in any of its forms into one document of what JSON has: mappings, lists, texts and numbers.

Live reports hold enumerations, NumPy's scalars and labels that are numbers; saved reports hold texts instead. The
document is the same for both.
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
    "the path of a file with its .json() or .dumps(). For a Report or a TestSuite of Evidently 0.3 to 0.6, give the "
    ".as_dict() or the .json() after its .run(...)."
)


def read_document(report: object) -> dict[str, Any]:
    """Read a snapshot, a mapping, JSON as text or bytes, or the path of a file with JSON.

    Raises:
        AdapterError: it is none of them, or cannot be read.
    """
    if hasattr(report, "dumps") and hasattr(report, "dict"):  # only a Snapshot has both, a Report does not
        document = report.dict()
    elif isinstance(report, bytes) or (isinstance(report, str) and report.lstrip("\ufeff \t\r\n").startswith("{")):
        document = _parse(report, "this JSON")
    elif isinstance(report, str | os.PathLike):
        document = _parse(_read_file(report), f"the file {os.fspath(report)}")
    else:
        document = report
    if not isinstance(document, Mapping):
        raise AdapterError(f"this {type(document).__name__} is not a report of Evidently", hint=HINT)
    if not document:
        raise AdapterError("an empty document is not a report of Evidently", hint=HINT)
    try:
        return {key_text(key): to_json(part) for key, part in document.items()}
    except RecursionError:
        raise AdapterError("the document is nested too deeply for a report of Evidently", hint=HINT) from None


def key_text(key: object) -> str:
    """The text of a key in JSON. A key can be a label, such as a number."""
    label = to_json(key)
    return label if isinstance(label, str) else json.dumps(label)


def to_json(value: Any) -> Any:
    """Convert a value of any library to what JSON has."""
    value = unwrap(value)
    for conversion in ("tolist", "to_dict"):  # of an array or a Series; of a DataFrame, which dump_dict() holds
        if hasattr(value, conversion):
            value = getattr(value, conversion)()
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {key_text(key): to_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(part) for part in value]
    if isinstance(value, date):
        return value.isoformat()
    # The rest are drift tests and functions that were passed as `method=`.
    return str(getattr(value, "name", None) or getattr(value, "__name__", value))


def to_jsonb(value: Any) -> Any:
    """Convert a value of JSON to what PostgreSQL's jsonb takes.

    NaN and infinity become text. NUL characters and lone surrogates are written as JSON escapes them.
    """
    if isinstance(value, Mapping):
        return {to_jsonb(key): to_jsonb(part) for key, part in value.items()}
    if isinstance(value, list):
        return [to_jsonb(part) for part in value]
    if isinstance(value, str):
        return value.replace("\0", "\\u0000").encode(errors="backslashreplace").decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise AdapterError(f"no report can be read from {excerpt(os.fspath(path))}: {reason}", hint=HINT) from None


def _parse(text: str | bytes, source: str) -> Any:
    start = text[:100].lstrip()
    if start[:1] in ("<", b"<"):
        raise AdapterError(
            f"{source} is HTML, which holds only the drawings of a report",
            hint="Save the report with snapshot.save_json(path), too, and give that file.",
        )
    try:
        return json.loads(text.lstrip("\ufeff") if isinstance(text, str) else text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise AdapterError(f"{source} cannot be read as JSON: {str(error)[:200]}", hint=HINT) from None
