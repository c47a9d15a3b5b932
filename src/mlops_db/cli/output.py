"""Print the results of commands: tables, states in their colours, and JSON for machines."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from mlops_db.terminal import Styled, console_of, print_line, style_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mlops_db.drift.compare import Difference

__all__ = [
    "Styled", "difference_for_json", "number", "print_details", "print_json", "print_line", "print_table", "state",
]  # fmt: skip

# What changed in a diff.
_DIFF = {"-": "red", "+": "green"}
_GOOD, _ODD, _BAD = "green", "yellow", "bold red"
_STATES = {
    **dict.fromkeys(("applied", "head", "no difference", "nothing found", "ok", "passed", "succeeded"), _GOOD),
    **dict.fromkeys(("interrupted", "pending", "running", "stale"), _ODD),
    **dict.fromkeys(("drifted", "failed", "high", "low", "missing"), _BAD),
}
UNLIMITED = 10_000
_THOUSAND = 1000


def state(word: str) -> Styled:
    """A state, such as `failed`, in its colour; a word that is no state has none."""
    return Styled(word, _STATES.get(word, ""))


def number(value: float) -> str:
    """A measured value for people: four digits, and whole from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= _THOUSAND else f"{value:.4g}"


def print_json(value: object) -> None:
    """Print an object as JSON; dataclasses become objects, and times are in UTC."""
    print(json.dumps(value, default=_json_value, ensure_ascii=False, indent=2))


def print_details(difference: Difference, *, file: TextIO | None = None) -> None:
    """Print the diff of a difference that one line does not hold, indented below it."""
    for line in difference.details():
        print_line(Styled(f"    {line}", _DIFF.get(line[:1], "")), file=file)


def difference_for_json(difference: Difference) -> dict[str, str | None]:
    """A difference for `print_json`."""
    return {**vars(difference), "name": str(difference.name)}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print rows of text, which may be `Styled`, under their columns; those named in `right` are aligned to the right.

    On a terminal that is too narrow for the table, each cell has a line of its own.
    """
    console = console_of(sys.stdout)
    if console is None:
        _print_plain_table(columns, rows, right)
        return
    from rich.table import Table  # noqa: PLC0415  (only a terminal needs it)
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(Text(cell, style_of(cell)) for cell in row))
    unwrapped = console.measure(table, options=console.options.update(max_width=UNLIMITED))
    if unwrapped.maximum <= console.width:
        console.print(table)
        return
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell:
                print_line(f"{column}: ", cell)
        print_line()


def _print_plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    for row in (columns, *rows):
        cells = [
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _json_value(value: Any) -> object:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
