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
    "Styled", "difference_for_json", "print_details", "print_json", "print_line", "print_table", "state",
]  # fmt: skip

# What changed in a diff.
_DIFF = {"-": "red", "+": "green"}
# What commands report of their own work; the states of metric series are in `reporting.states`.
_STATES = {
    **dict.fromkeys(("applied", "no difference", "nothing found", "ok"), "green"),
    **dict.fromkeys(("interrupted", "running", "stale"), "yellow"),
    **dict.fromkeys(("failed", "missing"), "bold red"),
}
_BESIDE_CELLS = 3  # two blanks and a line


def state(word: str) -> Styled:
    """An outcome, such as `failed`, in its colour; other words have none."""
    return Styled(word, _STATES.get(word, ""))


def print_json(value: object) -> None:
    """Print an object as JSON; dataclasses become objects, and times are in UTC."""
    text = json.dumps(value, default=_json_value, ensure_ascii=False, indent=2)
    # What could steer a terminal is inside of strings, where JSON can escape it.
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_details(difference: Difference, *, file: TextIO | None = None) -> None:
    """Print the diff of a difference that one line does not hold, indented below it."""
    for line in difference.details():
        print_line(Styled(f"    {line}", _DIFF.get(line[:1], "")), file=file)


def difference_for_json(difference: Difference) -> dict[str, str | None]:
    """A difference for `print_json`."""
    return {**vars(difference), "name": str(difference.name)}


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    wrapped: Collection[str] = (),
) -> None:
    """Print rows of text, which may be `Styled`, under their columns; those named in `right` are aligned to the right.

    On a terminal that is too narrow for the table, the columns named in `wrapped` are wrapped between words. If that is
    not enough, each cell has a line of its own.
    """
    console = console_of(sys.stdout)
    if console is None:
        _print_plain_table(columns, rows, right)
        return
    widths = _fitting_widths(columns, rows, wrapped, console.width)
    if widths is None:
        for place, row in enumerate(rows):
            if place:
                print_line()
            for column, cell in zip(columns, row, strict=True):
                if cell:
                    print_line(f"{column}: ", cell)
        return
    from rich.table import Table  # noqa: PLC0415  (only a terminal needs it)
    from rich.text import Text  # noqa: PLC0415

    table = Table()
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, justify="right" if column in right else "left", width=width)
    for row in rows:
        table.add_row(*(Text(cell, style_of(cell)) for cell in row))
    console.print(table)


def _fitting_widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], wrapped: Collection[str], limit: int
) -> list[int] | None:
    """The widths of the columns of a table that fits; None if there is none that breaks no word."""
    from rich.cells import cell_len  # noqa: PLC0415  (only a terminal needs it)

    cells = list(zip(columns, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in cells]
    least = [
        max(cell_len(word) for cell in column for word in cell.split()) if column[0] in wrapped else width
        for column, width in zip(cells, widths, strict=True)
    ]
    excess = sum(widths) + _BESIDE_CELLS * len(columns) + 1 - limit
    while excess > 0:
        place = max(range(len(columns)), key=lambda place: widths[place] - least[place])
        if widths[place] == least[place]:
            return None
        widths[place] -= 1
        excess -= 1
    return widths


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
