"""Running a command on a terminal, as a person does, and reading what it shows."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping

from support.database import SCRIPTS, TIMEOUT_S

# What the terminal, or the one that runs the tests, is like; pytest-xdist sets COLUMNS.
INHERITED = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_a_terminal(
    *arguments: str, environment: Mapping[str, str], columns: int = 80, **variables: str
) -> tuple[int, str]:
    """Exit code and output of `mlops-db` on a terminal of so many columns; colours are in the output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in environment.items() if name not in INHERITED}
    process = subprocess.Popen(
        [SCRIPTS / "mlops-db", *arguments],
        env={**kept, "TERM": "xterm-256color", **variables},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:  # the last user of the terminal has gone
        pass
    finally:
        os.close(ours)
    return process.wait(TIMEOUT_S), output.decode().replace("\r\n", "\n")


def without_colours(shown: str) -> str:
    """What is shown, without the codes of colours."""
    return COLOURS.sub("", shown)
