"""How a command line is read, and what is said of one that is wrong."""

import argparse
import re
from typing import NoReturn

from mlops_db.errors import UsageError

_UNKNOWN_COMMAND = re.compile(r"argument .*: invalid choice: (.+) \(choose from (.+)\)", re.DOTALL)
# What people type without the word before it.
_OF_ALEMBIC = ("branches", "current", "downgrade", "edit", "heads", "merge", "revision", "show", "stamp", "upgrade")


class Parser(argparse.ArgumentParser):
    """argparse, which tells a wrong command line as every other error is told."""

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
