"""Read command lines, lay out their help, and refuse wrong ones."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any, NoReturn

from mlops_db.errors import SettingsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNKNOWN_COMMAND = re.compile(r"argument .*: invalid choice: (.+) \(choose from (.+)\)", re.DOTALL)
# Alembic's commands, which people also type without `alembic` before them.
_OF_ALEMBIC = ("branches", "current", "downgrade", "edit", "heads", "merge", "revision", "show", "stamp", "upgrade")
_MAX_DIGITS = 9


class HelpFormatter(argparse.HelpFormatter):
    """Help that is wrapped between words only, and keeps paragraphs and lists."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrap(" ".join(text.split()), width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for paragraph in text.strip().split("\n\n"):
            heading, *rest = paragraph.splitlines()
            if rest and rest[0].startswith(" "):  # a heading and its list
                lines += [heading, *(part for line in rest for part in _wrap(line, width, hanging=7))]
            else:
                lines += _wrap(" ".join(paragraph.split()), width)
            lines.append("")
        return "\n".join(indent + line for line in lines[:-1]) + "\n"


class Parser(argparse.ArgumentParser):
    """argparse, which raises `UsageError` for a wrong command line."""

    def __init__(self, **options: Any) -> None:
        """Take argparse's options."""
        super().__init__(**{"formatter_class": HelpFormatter} | options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Read the command line. A command itself refuses an unknown argument, so that the hint names its help.

        Raises:
            UsageError: a command does not take an argument.
        """
        options, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            if unknown[0].startswith("-x") and " alembic " in self.prog:
                raise UsageError(
                    "-x stands before the command, not after it",
                    hint=f"Write {' -x KEY=VALUE '.join(self.prog.rsplit(' ', 1))} ...",
                )
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        unknown = _UNKNOWN_COMMAND.fullmatch(message)
        if unknown and self._subparsers is not None:
            message = self._suggestion(unknown[1], re.findall(r"[\w-]+", unknown[2]))
        raise UsageError(message, hint=f"`{self.prog} --help` lists what it takes.")

    def _suggestion(self, quoted: str, commands: list[str]) -> str:
        from difflib import get_close_matches  # noqa: PLC0415  (only a mistyped command needs it)

        known = {name: name for name in commands}
        if "alembic" in known:
            known = {name: f"alembic {name}" for name in _OF_ALEMBIC} | known
        close = get_close_matches(quoted.strip("'\""), known, n=1)
        meant = f"; did you mean `{self.prog} {known[close[0]]}`?" if close else ""
        return f"{quoted} is no command of {self.prog}{meant}"


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`. The command prints its result with `output.print_json`, and main does so with its failure."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add `--dry-run`."""
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")


def whole_number(least: int, greatest: int = 10**_MAX_DIGITS - 1) -> Callable[[str], int]:
    """A `type` for `add_argument`: whole numbers between these two."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        number = int(text)
        if not least <= number <= greatest:
            up_to = f" to {greatest}" if greatest < 10**_MAX_DIGITS - 1 else ""
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least}{up_to}")
        return number

    return read


def duration(option: str) -> Callable[[str], int]:
    """A `type` for `add_argument`: a duration such as `500ms`, `5s` or `2min`, or seconds; returns milliseconds."""

    def read(text: str) -> int:
        from mlops_db.settings import duration_ms  # noqa: PLC0415  (the help does without)

        try:
            return duration_ms(text, option, unit="s")
        except SettingsError as error:
            raise UsageError(str(error), hint=error.hint) from None

    return read


def _wrap(text: str, width: int, *, hanging: int = 0) -> list[str]:
    import textwrap  # noqa: PLC0415  (only the help needs it)

    indent = " " * hanging
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
