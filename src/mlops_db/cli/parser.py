"""How a command line is read, and what is said of one that is wrong."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from mlops_db.errors import UsageError

_UNKNOWN_COMMAND = re.compile(r"argument .*: invalid choice: (.+) \(choose from (.+)\)", re.DOTALL)
# What people type without the word before it.
_OF_ALEMBIC = ("branches", "current", "downgrade", "edit", "heads", "merge", "revision", "show", "stamp", "upgrade")


class Parser(argparse.ArgumentParser):
    """argparse, which tells a wrong command line as every other error is told."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Read the command line; a command refuses by itself what it does not take, and not the program above it.

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
        if unknown:
            message = self._suggestion(unknown[1], re.findall(r"[\w-]+", unknown[2]))
        raise UsageError(message, hint=f"`{self.prog} --help` lists what it takes.")

    def _suggestion(self, quoted: str, commands: list[str]) -> str:
        from difflib import get_close_matches  # noqa: PLC0415  (only who mistyped waits for it)

        known = {name: name for name in commands}
        if "alembic" in known:
            known = {name: f"alembic {name}" for name in _OF_ALEMBIC} | known
        close = get_close_matches(quoted.strip("'\""), known, n=1)
        meant = f"; did you mean `{self.prog} {known[close[0]]}`?" if close else ""
        return f"{quoted} is no command of {self.prog}{meant}"
