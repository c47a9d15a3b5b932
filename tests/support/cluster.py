"""Servers that need not outlive their tests: where they live, and one of any PostgreSQL's programs."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Databases come and go by the hundred; nothing here has to survive a power failure.
DISPOSABLE = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
ON_DISK, IN_MEMORY = Path("/tmp"), Path("/dev/shm")  # noqa: S108  (mkdtemp names what is made there)
NEEDED_BYTES = 2 << 30


def server_folder(purpose: str) -> Path:
    """A new folder for a server's data: in memory where there is room, as a disk makes the suite take twice as long.

    Not pytest's folder: that is too long for a socket's path of 107 bytes, and keeps nobody out of it.
    """
    in_memory = os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free >= NEEDED_BYTES
    return Path(tempfile.mkdtemp(prefix=f"mlops-db-{purpose}-", dir=IN_MEMORY if in_memory else ON_DISK))


@contextmanager
def throwaway_cluster(programs: Path) -> Iterator[Path]:
    """Start a server for the time of the block; gives the folder of its socket. Port 5432, superuser postgres."""
    owner = _owner()
    folder = server_folder("cluster")
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    _run(
        programs, folder, "initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"
    )
    settings = DISPOSABLE | {"listen_addresses": "''", "unix_socket_directories": f"'{folder}'", "port": "5432"}
    with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.writelines(f"{name} = {value}\n" for name, value in settings.items())
    start(programs, folder)
    try:
        yield folder
    finally:
        stop(programs, folder)
        shutil.rmtree(folder)


def start(programs: Path, folder: Path) -> None:
    """Start a server that was stopped, and wait until it takes connections."""
    # Its log is no pipe: the server would keep that open, and this would wait for its end.
    _run(programs, folder, "pg_ctl", "--silent", "--wait", f"--log={folder / 'log'}", "start")


def stop(programs: Path, folder: Path) -> None:
    """Stop the server in the middle of whatever it does."""
    _run(programs, folder, "pg_ctl", "--silent", "--wait", "--mode=immediate", "stop")


def _run(programs: Path, folder: Path, program: str, *options: str) -> None:
    owner = _owner()
    done = subprocess.run(
        [str(programs / program), f"--pgdata={folder / 'data'}", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        user=owner.pw_uid if owner else None,
        group=owner.pw_gid if owner else None,
        extra_groups=() if owner else None,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _owner() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
