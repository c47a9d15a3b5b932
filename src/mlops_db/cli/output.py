"""How commands print tables and diffs: drawn and coloured on a terminal, aligned text in a pipe."""

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from mlops_db.drift.compare import Difference

COLOURS = {"-": "\x1b[31m", "+": "\x1b[32m"}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print rows of text under their columns; those named in `right` are aligned to the right."""
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415  (only a terminal needs it)
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table()
        for column in columns:
            table.add_column(column, justify="right" if column in right else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    for row in (columns, *rows):
        cells = [
            f"{cell:>{width}}" if column in right else f"{cell:<{width}}"
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def print_details(difference: "Difference", stream: TextIO | None) -> None:
    """Print the diff of a difference that one line does not hold, indented below it."""
    terminal = stream is not None and stream.isatty()
    for line in difference.details():
        colour = COLOURS.get(line[0]) if terminal else None
        print(f"    {colour}{line}\x1b[0m" if colour else f"    {line}", file=stream)
