"""A process that runs one command after the other, without starting Python for each."""

import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import alembic.config

from mlops_db.cli.main import main
from support.database import ROOT
from support.fuzzed import OF_ALEMBIC, Input

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class Commands:
    """A process that has imported everything, and forks for each input."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        processes = get_context("forkserver")
        self._inputs, theirs = processes.Pipe()
        self._output = (folder / "out", folder / "err")
        self._process = processes.Process(target=_serve, args=(theirs, dict(environment), self._output), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, given: Input) -> subprocess.CompletedProcess[str]:
        self._inputs.send(given)
        code = self._inputs.recv()
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._output)
        return subprocess.CompletedProcess(given.arguments, code, out, err)

    def stop(self) -> None:
        self._inputs.close()
        self._process.join()


def _serve(given: "Connection[int, Input]", environment: Mapping[str, str], output: tuple[Path, Path]) -> None:
    os.chdir(ROOT)
    import mlops_db.cli.alembic  # noqa: PLC0415
    import mlops_db.migration.commands  # noqa: F401, PLC0415

    while True:
        try:
            one = given.recv()
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            os._exit(_ended(one, environment, output))
        given.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _ended(given: Input, environment: Mapping[str, str], output: tuple[Path, Path]) -> int:
    """Run the input as its console script would; returns the exit code."""
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(given.variables)
    for path, descriptor in zip(output, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    program, *arguments = given.arguments
    code = 1
    try:
        if program == OF_ALEMBIC:
            alembic.config.main(arguments, prog="alembic")
            code = 0
        else:
            code = main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  (what Python would do)
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code & 255
