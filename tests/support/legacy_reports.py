"""What a report of Evidently 0.3 to 0.6 holds and its reader does not tell."""

import re
from collections.abc import Iterator
from typing import Any

from mlops_db.adapters.evidently.documents import read_document
from mlops_db.adapters.evidently.legacy import read_legacy
from mlops_db.adapters.evidently.measurement import LeftOut, Measurement


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number that stands in mappings alone; lists are no rows."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, str(key)))
    elif isinstance(value, int | float):
        yield path, value


def lost(document: dict[str, Any]) -> list[tuple[str, ...]]:
    """The paths of numbers of the current data that are neither values, nor metadata, nor left out."""
    found = list(read_legacy(read_document(document)))
    rows = [each for each in found if isinstance(each, Measurement)]
    held = {float(number) for row in rows for _, number in leaves(row.metadata)}
    held |= {row.value for row in rows if row.value is not None}
    names = [each.name for each in found if isinstance(each, LeftOut)]
    names += [row.metadata["error"] for row in rows if row.value is None]
    return [
        (metric["metric"], *path)
        for metric in document["metrics"]
        for path, number in leaves(metric["result"])
        if float(number) not in held
        and not any(re.sub("current_(?!value)|_value", "", part) in name for name in names for part in path)
        and not (path[0].startswith("reference") or path[0].endswith("_ref"))
    ]
