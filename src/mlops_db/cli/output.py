"""Print results: drawn, coloured and wrapped at words on a terminal; plain text in a pipe; JSON for machines.

Rich respects NO_COLOR, FORCE_COLOR and COLUMNS. With FORCE_COLOR, a pipe gets what a terminal gets.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import Console

    from mlops_db.drift.compare import Difference

COLOURS = {"-": "red", "+": "green"}
UNLIMITED = 10_000


def print_json(value: object) -> None:
    """Print an object as JSON; dataclasses become objects, and times are in UTC."""
    print(json.dumps(value, default=_json_value, ensure_ascii=False, indent=2))


def print_line(text: str = "", *, file: TextIO | None = None, style: str = "") -> None:
    """Print text; on a terminal it is wrapped between words."""
    file = file or sys.stdout
    console = _console(file)
    if console is None:
        print(text, file=file)
    else:
        from rich.text import Text  # noqa: PLC0415  (only a terminal needs it)

        console.print(Text(text, style))


def print_details(difference: Difference, *, file: TextIO | None = None) -> None:
    """Print the diff of a difference that one line does not hold, indented below it."""
    for line in difference.details():
        print_line(f"    {line}", file=file, style=COLOURS.get(line[:1], ""))


def difference_for_json(difference: Difference) -> dict[str, str | None]:
    """A difference for `print_json`."""
    return {**vars(difference), "name": str(difference.name)}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print rows of text under their columns; those named in `right` are aligned to the right.

    On a terminal that is too narrow for the table, each cell has a line of its own.
    """
    console = _console(sys.stdout)
    if console is None:
        _print_plain_table(columns, rows, right)
        return
    from rich.table import Table  # noqa: PLC0415  (only a terminal needs it)
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    unwrapped = console.measure(table, options=console.options.update(max_width=UNLIMITED))
    if unwrapped.maximum <= console.width:
        console.print(table)
        return
    for row in rows:
        print_line("\n".join(f"{column}: {cell}" for column, cell in zip(columns, row, strict=True) if cell) + "\n")


def _print_plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    for row in (columns, *rows):
        cells = [
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _console(file: TextIO | None) -> Console | None:
    """Rich's console of a terminal; None for a pipe, and where the caller has closed the stream."""
    if file is None or not (file.isatty() or os.environ.get("FORCE_COLOR")):
        return None
    from rich.console import Console  # noqa: PLC0415  (only a terminal needs it)

    return Console(file=file)


def _json_value(value: Any) -> object:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
