"""A process that runs one command after the other, without starting Python for each.

The process has imported everything and forks for each command. The child has its own environment, arguments and exit
code, like a process of a shell.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
TIMEOUT_S = 120
# Python and the C library read all other variables only when a process starts.
READ_BY_COMMANDS = ("POSTGRES_", "MLOPS_", "PG", "ALEMBIC_", "PYTEST_", "COLUMNS")


class Commands:
    """Runs `alembic ...`, `mlops-db ...` and `python -c ...`, as users do."""

    def __init__(self, environment: Mapping[str, str], cwd: Path = ROOT) -> None:
        """Start the process. Every command gets `environment`; its PYTHONPATH chooses the package."""
        self._environment = dict(environment)
        self._folder = tempfile.TemporaryDirectory()
        self._output = [str(Path(self._folder.name) / name) for name in ("out", "err")]
        paths = [path for path in (environment.get("PYTHONPATH"), str(TESTS)) if path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from support.forked_commands import serve; serve()"],
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with `variables` added to its environment."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps([command, {**self._environment, **variables}, self._output]), file=stdin, flush=True)
        code = int(stdout.readline())
        out, err = (Path(path).read_text(encoding="utf-8", errors="replace") for path in self._output)
        return subprocess.CompletedProcess(command, code, out, err)

    def knows(self, environment: Mapping[str, str]) -> bool:
        """Whether the environment differs from the process's only in variables that a command reads itself."""
        names = {*environment, *self._environment}
        differing = (name for name in names if environment.get(name) != self._environment.get(name))
        return all(name.startswith(READ_BY_COMMANDS) for name in differing)

    def stop(self) -> None:
        """End the process."""
        self._process.communicate()
        self._folder.cleanup()


def serve() -> None:
    """Run the commands on standard input, one a line; answer each with its exit code."""
    import alembic.config  # noqa: F401, PLC0415

    import mlops_db.cli.alembic  # noqa: PLC0415
    import mlops_db.cli.main  # noqa: PLC0415
    import mlops_db.migration.commands  # noqa: PLC0415
    import mlops_db.storage.pool  # noqa: F401, PLC0415

    for line in sys.stdin:
        command, environment, output = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_ended(command, environment, output))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


def _ended(command: Sequence[str], environment: Mapping[str, str], output: Sequence[str]) -> int:
    """Run the command as its console script would; returns the exit code."""
    import signal  # noqa: PLC0415

    signal.alarm(TIMEOUT_S)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for path, descriptor in zip(output, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    code = 1
    try:
        code = _run(*command)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)  # noqa: T201
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001  (as Python does)
        traceback.print_exc()
    atexit._run_exitfuncs()  # noqa: SLF001  (one of them counts the users of the embedded server)
    # Alembic writes to the standard output that was there when it was imported.
    for stream in (sys.__stdout__, sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return code & 255


def _run(program: str, *arguments: str) -> int:
    import alembic.config  # noqa: PLC0415

    import mlops_db.cli.main  # noqa: PLC0415

    sys.argv = [program, *arguments]
    if program == "alembic":
        alembic.config.main(list(arguments), prog="alembic")
        return 0
    if program == "mlops-db":
        return mlops_db.cli.main.main(list(arguments))
    assert (program, arguments[0]) == (sys.executable, "-c")
    exec(arguments[1], {"__name__": "__main__"})  # noqa: S102
    return 0


_shared: list[Commands] = []
_turn = threading.Lock()


def run_forked(*command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str] | None:
    """Run a command in the process that all tests here share; None if it is busy or the environment does not fit."""
    if command[0] not in ("alembic", "mlops-db") or not _turn.acquire(blocking=False):
        return None
    try:
        if not _shared:
            # Not the environment of the first command, which may have another encoding than the others.
            kept = {name: value for name, value in os.environ.items() if not name.startswith(READ_BY_COMMANDS)}
            _shared.append(Commands(kept | {"PYTHONUTF8": "1"}))
            atexit.register(_shared[0].stop)
        return _shared[0].run(*command, **environment) if _shared[0].knows(environment) else None
    finally:
        _turn.release()
