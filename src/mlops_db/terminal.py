"""Write lines for people: coloured, and broken between words only, on a terminal; as they are in a pipe.

A command finishes its work even if a line cannot be written.

Rich respects NO_COLOR, FORCE_COLOR and COLUMNS. With FORCE_COLOR, a pipe gets what a terminal gets.
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console
    from rich.text import Text
    from typing_extensions import Self

# The style of the word that a line begins with.
_KINDS = {"error": "bold red", "warning": "bold yellow", "note": "bold yellow", "hint": "bold cyan"}


class Styled(str):
    """Text in a style of Rich's, such as `bold red`, which a terminal shows.

    Attributes:
        style: the style.
    """

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str) -> Self:  # noqa: D102  (the class says it)
        styled = super().__new__(cls, text)
        styled.style = style
        return styled


def style_of(text: str) -> str:
    """The style of a `Styled` text; of other texts, none."""
    return text.style if isinstance(text, Styled) else ""


def console_of(stream: TextIO | None) -> Console | None:
    """Rich's console of a terminal; None for a pipe, and where the caller has closed the stream."""
    if stream is None or not (stream.isatty() or os.environ.get("FORCE_COLOR")):
        return None
    from rich.console import Console  # noqa: PLC0415  (only a terminal needs it)

    return Console(file=stream, highlight=False)


class _Lossy(io.TextIOWrapper):
    """A stream that loses what cannot be written, and remembers why."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text, or lose it."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write what is left, or lose it."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.failure = error
        # Python writes what is in the buffer again at exit, and that would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def survive_lost_output() -> None:
    """Let a command do its work to the end, even if standard output or standard error cannot be written.

    Lines are written at once, in a pipe, too, so that those of both streams stay in order. Characters that the encoding
    lacks are replaced.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # A program around this one may have put another stream there; it is None where the caller has closed it.
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace", line_buffering=True)  # others still write to it
            # A buffer of its own stays open for them. It also writes a text whole, which `python -u` has no buffer for.
            buffer = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115  (it is open as long as the stream)
            setattr(sys, name, _Lossy(buffer, encoding=stream.encoding, errors="replace", line_buffering=True))


def report_lost_output(code: int) -> int:
    """The exit code of a command that would end with `code`: not 0 if its standard output is not whole.

    An error line says why. A reader that went away (`mlops-db status | head -1`) is no failure.
    """
    if not isinstance(sys.stdout, _Lossy):
        return code
    sys.stdout.flush()
    failure = sys.stdout.failure
    if failure is None or isinstance(failure, BrokenPipeError):
        return code
    print_line(
        f"error: standard output cannot be written: {failure.strerror}\n"
        "hint: Make room, or write it elsewhere. Only output is lost: what the command changes is done.",
        file=sys.stderr,
    )
    return code or 1


def print_line(*parts: str, file: TextIO | None = None) -> None:
    """Print a line, such as `error: ...`, or several ones, to standard output or another stream.

    Args:
        parts: the text; parts of it may be `Styled`.
        file: the stream.
    """
    file = file or sys.stdout
    console = console_of(file)
    if console is None:
        print(*parts, sep="", file=file, flush=True)
        return
    for line in styled_lines(parts, console):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)


def styled_lines(parts: Iterable[str], console: Console) -> list[Text]:
    """The text as lines of the terminal, which keep the indentation of the line that they are broken from.

    A word that no line holds, such as a path, stays whole, so that it can be copied.
    """
    from rich.text import Text  # noqa: PLC0415  (only a terminal needs it)

    text = Text.assemble(*((part, style_of(part)) for part in parts))
    for kind, style in _KINDS.items():
        text.highlight_regex(rf"(?m)^{kind}:", style)
    lines: list[Text] = []
    for line in text.split(allow_blank=True):
        blanks = len(line.plain) - len(line.plain.lstrip())
        indentation = blanks if blanks < console.width // 2 else 0
        first, *others = line.divide(_breaks(line.plain, console.width, indentation))
        for other in others:
            other.pad_left(indentation)
        for part in (first, *others):
            part.rstrip()
            lines.append(part)
    return lines


def _breaks(line: str, width: int, indentation: int) -> Iterator[int]:
    """The places where words begin that do not fit on the line before."""
    from rich.cells import cell_len  # noqa: PLC0415  (only a terminal needs it)

    begin, room = 0, width
    for word in re.finditer(r"\S+", line):
        if cell_len(line[begin : word.end()]) > room and line[begin : word.start()].strip():
            begin, room = word.start(), width - indentation
            yield begin
