"""Throwaway servers: of any PostgreSQL's programs, or the embedded server of a folder; freezing their processes."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from mlops_db.server.embedded import Account, server_programs
from mlops_db.settings import Settings
from support.database import clean_environment

# Tests create databases by the hundred, and no data has to survive a power failure.
DISPOSABLE = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
ON_DISK, IN_MEMORY = Path("/tmp"), Path("/dev/shm")  # noqa: S108  (mkdtemp chooses the name)
NEEDED_BYTES = 2 << 30
# Keeps the embedded server of the working directory running until standard input ends.
HOLDER = """
import sys
from mlops_db.server.connection import resolve_embedded
from mlops_db.settings import Settings
print(resolve_embedded(Settings.from_environment()).host, flush=True)
sys.stdin.read()
"""


def server_folder(purpose: str, *, in_memory: bool = True) -> Path:
    """Create a folder for a server's data: in memory if there is room, because the suite takes twice as long on disk.

    pytest's own folder is too deep: the path of a socket has 107 bytes at most. If root runs the tests, the user that
    runs the server can pass through the folder. Only that user can read the data in it.
    """
    in_memory = in_memory and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free >= NEEDED_BYTES
    folder = Path(tempfile.mkdtemp(prefix=f"mlops-db-{purpose}-", dir=IN_MEMORY if in_memory else ON_DISK))
    if os.geteuid() == 0:
        folder.chmod(0o711)
    return folder


@contextmanager
def embedded_server(folder: Path) -> Iterator[Settings]:
    """Keep the embedded server of a working directory running during the block; gives its superuser's settings."""
    environment = clean_environment(POSTGRES_HOST="embedded", POSTGRES_USER="postgres", MLOPS_DB_NAME="postgres")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env=environment,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as holder:
        assert holder.stdout is not None
        host = holder.stdout.readline().rstrip("\n")
        yield Settings(host=host, port=5432, user="postgres", password=None, database="postgres")
        holder.communicate()


def embedded_programs() -> Path:
    """The programs of the embedded server, or a copy that the owner of throwaway servers can run."""
    return server_programs(server_owner())


def chosen_programs(config: pytest.Config) -> Path:
    """The programs of `--postgresql-exec`, or those of the embedded server."""
    pg_ctl = config.getoption("postgresql_exec")
    return embedded_programs() if pg_ctl is None else Path(pg_ctl).parent


@contextmanager
def throwaway_cluster(programs: Path, *options: str, in_memory: bool = True, **settings: str) -> Iterator[Path]:
    """Run a server during the block; gives the folder of its socket. Its port is 5432, its superuser postgres."""
    folder = new_cluster(programs, *options, in_memory=in_memory, **settings)
    try:
        start(programs, folder)
        try:
            yield folder
        finally:
            stop(programs, folder)
    finally:
        shutil.rmtree(folder)


def new_cluster(programs: Path, *options: str, in_memory: bool = True, **settings: str) -> Path:
    """Create a server without starting it; returns its folder, with the data in `data`. `options` go to initdb."""
    owner = server_owner()
    folder = server_folder("cluster", in_memory=in_memory)
    if owner is not None:
        folder.chmod(0o700)
        os.chown(folder, owner.uid, owner.gid)
    _run(
        programs, folder, "initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync",
        *options,
    )  # fmt: skip
    where = {"listen_addresses": "''", "unix_socket_directories": f"'{folder}'", "port": "5432"}
    with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.writelines(f"{name} = {value}\n" for name, value in {**DISPOSABLE, **where, **settings}.items())
    return folder


def start(programs: Path, folder: Path) -> None:
    """Start a server that is not running, and wait until it takes connections."""
    # The log is a file: the server would hold a pipe open, and this call would wait for the end of the server.
    _run(programs, folder, "pg_ctl", "--silent", "--wait", f"--log={folder / 'log'}", "start")


def promote(programs: Path, folder: Path) -> None:
    """Make a standby the primary."""
    _run(programs, folder, "pg_ctl", "--silent", "--wait", "promote")


def standby_of(folder: Path) -> Path:
    """Copy a server that was shut down into a standby; returns its folder. It follows no server and is not started."""
    copy = server_folder("standby")
    copy.rmdir()
    subprocess.run(["/bin/cp", "--archive", str(folder), str(copy)], check=True)
    with (copy / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(f"unix_socket_directories = '{copy}'\n")
    (copy / "data" / "standby.signal").touch()
    return copy


def stop(programs: Path, folder: Path, mode: str = "immediate") -> None:
    """Stop the server. The default mode of pg_ctl stops it in the middle of what it does."""
    _run(programs, folder, "pg_ctl", "--silent", "--wait", f"--mode={mode}", "stop")


def upgrade_cluster(old: Path, programs: Path, folder: Path) -> Path:
    """Run pg_upgrade on a server that was shut down; returns the folder of the new server, which is not started."""
    new = new_cluster(programs, *(["--no-data-checksums"] if (programs / "pg_checksums").exists() else []))
    _run(programs, new, "pg_upgrade", f"--old-bindir={old}", f"--new-bindir={programs}",
         f"--old-datadir={folder / 'data'}", f"--new-datadir={new / 'data'}", f"--socketdir={new}",
         "--username=postgres", "--no-sync")  # fmt: skip
    return new


def settings_of(folder: Path, database: str = "postgres") -> Settings:
    """The settings that connect to a server as its superuser."""
    return Settings(host=str(folder), port=5432, user="postgres", password=None, database=database)


def connect_superuser(folder: Path, database: str = "postgres") -> psycopg.Connection[Any]:
    """Connect to a server as its superuser, in autocommit."""
    return psycopg.connect(host=str(folder), user="postgres", dbname=database, autocommit=True)


def postmaster_of(folder: Path) -> int:
    """The process that starts all others of a server."""
    return int((folder / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


@contextmanager
def freeze(*pids: int) -> Iterator[None]:
    """Stop processes during the block, as a machine without memory or a debugger does."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


@contextmanager
def freeze_server(folder: Path) -> Iterator[None]:
    """Stop all processes of a server during the block: first the postmaster, so that no others come."""
    postmaster = postmaster_of(folder)
    with freeze(postmaster), ExitStack() as frozen:
        for child in psutil.Process(postmaster).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                frozen.enter_context(freeze(child.pid))
        yield


def _run(programs: Path, folder: Path, program: str, *options: str) -> None:
    owner = server_owner()
    data = [] if program == "pg_upgrade" else [f"--pgdata={folder / 'data'}"]
    done = subprocess.run(
        [str(programs / program), *data, *options],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        user=owner.uid if owner else None,
        group=owner.gid if owner else None,
        extra_groups=() if owner else None,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def server_owner() -> Account | None:
    """The user that runs the server if root runs the tests: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid)
