"""A real `mlflow server` on SQLite and a free port of the loopback. It needs all of MLflow, not mlflow-skinny."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START_TIMEOUT_S = 240  # ten to twenty seconds, but a minute on a busy machine: MLflow is imported twice
STOP_TIMEOUT_S = 10


class MlflowServer:
    """A server process. It keeps its database and its port from one start to the next."""

    def __init__(self, folder: Path) -> None:
        """Choose a port; the empty `folder` is for the database, the artifacts and the log."""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self.database = folder / "mlflow.db"

    @property
    def log(self) -> str:
        """What it has written since the first start."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None
        options = {
            "backend-store-uri": f"sqlite:///{self.database}",
            "artifacts-destination": str(self._folder / "artifacts"),
            "host": "127.0.0.1",
            "port": str(self._port),
            "workers": "1",
            "allowed-hosts": f"127.0.0.1:{self._port}",  # a server on the Internet names its hosts, too
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # its jobs are processes in groups of their own
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items())],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that one signal reaches all of its processes
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server as an operator does. It answers its open requests first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill all of its processes at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start the server again on the same port and database; kill it first if it runs."""
        self.kill()
        self.start()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Kill the server for the block, and start it again afterwards."""
        self.kill()
        try:
            yield
        finally:
            self.restart()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            os.killpg(process.pid, how)
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()  # a group that has a process which nobody has waited for is never gone
            _kill_group(process.pid)  # whatever is left of it

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:  # noqa: S310  (http, by ourselves)
                return answer.read() == b"OK"  # type: ignore[no-any-return]
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def running_server(folder: Path) -> Iterator[MlflowServer]:
    """Run a server during the block; no process of it is left afterwards."""
    server = MlflowServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _kill_group(group: int) -> None:
    try:
        while True:
            os.killpg(group, signal.SIGKILL)
            time.sleep(0.01)
    except ProcessLookupError:
        pass
