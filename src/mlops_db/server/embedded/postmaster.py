"""Finds, starts and stops the server's process, for a caller that has locked the data's folder.

PostgreSQL writes the process id and the address of the server into `postmaster.pid`.
"""

import errno
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mlops_db.server.embedded.account import as_account, give, reason
from mlops_db.server.embedded.place import Place
from mlops_db.server.embedded.programs import server_programs
from mlops_db.server.embedded.sockets import PORT, new_socket_folder, remove_socket_folders

START_S = STOP_S = 60
NOBODYS_PID = 2**31 - 1  # no other number has more digits
# These keep a server from starting for a moment only: processes of a killed server still end, or a server that a killed
# process had just started.
PASSING = (b"shared memory block", b'lock file "postmaster.pid"')

_children: dict[tuple[int, int], "subprocess.Popen[bytes]"] = {}  # by parent, since processes fork


class Server(NamedTuple):
    """The contents of `postmaster.pid`."""

    pid: int
    port: int
    sockets: Path
    ready: bool


def wait_for_server(data: Path, child: "subprocess.Popen[bytes] | None" = None) -> Server | None:
    """Wait until the server accepts connections; None if there is none, and `child` has ended.

    A killed process may have left a server that starts or stops.
    """
    for _ in _attempts(START_S):
        server = _read_pid_file(data)
        if server is not None and _accepts(server):
            return server
        begins = child is not None and child.poll() is None
        if not begins and (server is None or not _is_postmaster(server.pid, data)):
            return None
    raise TimeoutError(f"it is not ready after {START_S} s")


def start(place: Place) -> Server:
    """Start the server and wait until it accepts connections."""
    data, account = place
    _forget_dead_server(data)
    remove_socket_folders(data)
    sockets = str(new_socket_folder(place)).replace('"', '""')
    private = ("--listen_addresses=", "--unix_socket_permissions=0700", f'--unix_socket_directories="{sockets}"')
    command = [str(server_programs(account) / "postgres"), "-D", str(data), f"--port={PORT}", *private]
    for _ in _attempts(START_S):
        log = os.open(data / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(log, "rb") as output:
            give(data / "log", account)
            begin = output.seek(0, os.SEEK_END)
            child = subprocess.Popen(  # noqa: S603  (the package's program)
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Control-C must not stop the server, which others may use
                **as_account(account),
            )
            _children[os.getpid(), child.pid] = child
            try:
                server = wait_for_server(data, child)
            except BaseException:
                child.send_signal(signal.SIGQUIT)
                raise
            if server is not None:
                return server
            output.seek(begin)
            failure = output.read()
        if not any(phrase in failure for phrase in PASSING):
            break
    raise OSError(reason(failure))


def stop(data: Path) -> None:
    """Stop the server, unless it is another container's, and wait for its end."""
    server = _read_pid_file(data)
    if server is None or not _is_postmaster(server.pid, data):
        return
    os.kill(server.pid, signal.SIGINT)
    for _ in _attempts(STOP_S):
        if not _is_postmaster(server.pid, data):
            remove_socket_folders(data)
            return


def _read_pid_file(data: Path) -> Server | None:
    with suppress(OSError, ValueError, IndexError):  # it is not there, or not written yet
        lines = (data / "postmaster.pid").read_bytes().split(b"\n")
        return Server(int(lines[0]), int(lines[3]), Path(os.fsdecode(lines[4])), ready=b"ready" in b"".join(lines[7:]))
    return None


def _accepts(server: Server) -> bool:
    """Whether it accepts connections; this also finds the server of another container."""
    if not server.ready:
        return False
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0)
        answer = client.connect_ex(os.fsencode(server.sockets / f".s.PGSQL.{server.port}"))
    return answer in (0, errno.EAGAIN)  # the latter if there is a queue


def _is_postmaster(pid: int, data: Path) -> bool:
    child = _children.get((os.getpid(), pid))
    if child is not None:
        return child.poll() is None
    import psutil  # noqa: PLC0415  (of the extra, and slow to import)

    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and data.samefile(process.cwd())
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, OSError, ValueError):
        return False


def _forget_dead_server(data: Path) -> None:
    """Replace the process id in the file of a crashed server: another process may have that id by now.

    The file stays, because PostgreSQL finds in it the shared memory of processes that still run.
    """
    with suppress(FileNotFoundError):
        descriptor = os.open(data / "postmaster.pid", os.O_RDWR | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "r+b") as file:
            _, _, rest = file.read().partition(b"\n")
            file.seek(0)
            file.write(b"%d\n%s" % (NOBODYS_PID, rest))


def _attempts(seconds: float) -> Iterator[None]:
    """Yield for each attempt until the time is over."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        yield
        time.sleep(0.01)
