"""Programs that stand in for pg_dump: they write down their arguments, wait, fail or are older; then it runs itself."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.database import client

_SCRIPT = """#!/bin/bash
here={folder}
if [ "$1" = --version ]; then echo 'pg_dump (PostgreSQL) {version}'; exit; fi
printf '%s\\n' "$@" >> $here/arguments
{body}
exec {real} "$@"
"""
WAITS = "touch $here/begun; while [ ! -e $here/may_go ]; do sleep 0.02; done"


@dataclass(frozen=True)
class DumpPrograms:
    """A folder with a pg_dump and a pg_restore for PATH."""

    folder: Path

    @property
    def path(self) -> str:
        """The value of PATH with this folder first."""
        return f"{self.folder}:{os.environ['PATH']}"

    @property
    def arguments(self) -> str:
        """The arguments that pg_dump was called with, one a line."""
        return (self.folder / "arguments").read_text(encoding="utf-8")

    def has_begun(self) -> bool:
        """Whether a pg_dump that waits has begun."""
        return (self.folder / "begun").exists()

    def let_go(self) -> None:
        """Let a pg_dump that waits go on."""
        (self.folder / "may_go").touch()


def dump_programs(folder: Path, body: str = "", *, version: str = "99.1") -> DumpPrograms:
    """Write a pg_dump that runs `body`, in bash, before the real one; `$here` is its folder."""
    folder.mkdir()
    program = folder / "pg_dump"
    program.write_text(_SCRIPT.format(folder=folder, body=body, version=version, real=client("pg_dump")))
    program.chmod(0o755)
    (folder / "pg_restore").symlink_to(client("pg_restore"))
    return DumpPrograms(folder)


def rows_of(file: Path) -> dict[str, list[str]]:
    """The rows of a backup by table, as pg_restore prints them."""
    done = subprocess.run(
        [client("pg_restore"), "--data-only", "--file=-", str(file)],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    rows: dict[str, list[str]] = {}
    table = None
    for line in done.stdout.split("\n"):
        if line == "\\.":
            table = None
        elif table is not None:
            rows[table].append(line)
        elif line.startswith("COPY "):
            table = line.removeprefix("COPY ").partition(" (")[0]
            rows.setdefault(table, [])
    return rows
