"""Servers that need not outlive their tests: their folders, one of any programs of PostgreSQL, and the embedded one."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlops_db.server.embedded import Account, server_programs
from mlops_db.settings import Settings
from support.database import clean_environment

# Databases come and go by the hundred; nothing here has to survive a power failure.
DISPOSABLE = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
ON_DISK, IN_MEMORY = Path("/tmp"), Path("/dev/shm")  # noqa: S108  (mkdtemp names what is made there)
NEEDED_BYTES = 2 << 30
# Uses the embedded server of the working directory until its standard input ends.
HOLDER = """
import sys
from mlops_db.server.connection import resolve_embedded
from mlops_db.settings import Settings
print(resolve_embedded(Settings.from_environment()).host, flush=True)
sys.stdin.read()
"""


def server_folder(purpose: str) -> Path:
    """A new folder for a server's data: in memory where there is room, as a disk makes the suite take twice as long.

    Not pytest's folder: that is too long for a socket's path of 107 bytes. Whoever root's servers run as can pass
    through it; the data inside is open to that user only.
    """
    in_memory = os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free >= NEEDED_BYTES
    folder = Path(tempfile.mkdtemp(prefix=f"mlops-db-{purpose}-", dir=IN_MEMORY if in_memory else ON_DISK))
    if os.geteuid() == 0:
        folder.chmod(0o711)
    return folder


@contextmanager
def embedded_server(folder: Path) -> Iterator[Settings]:
    """Keep the embedded server of that working directory running for the time of the block; superuser postgres."""
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
    """The programs of the embedded server, or a copy that the owner of throw-away servers can run."""
    return server_programs(_owner())


@contextmanager
def throwaway_cluster(programs: Path, **settings: str) -> Iterator[Path]:
    """Start a server for the time of the block; gives the folder of its socket. Port 5432, superuser postgres."""
    folder = new_cluster(programs, **settings)
    start(programs, folder)
    try:
        yield folder
    finally:
        stop(programs, folder)
        shutil.rmtree(folder)


def new_cluster(programs: Path, *options: str, **settings: str) -> Path:
    """A new folder with the data of a server that was not started yet, in `data`; `options` are initdb's."""
    owner = _owner()
    folder = server_folder("cluster")
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
    """Start a server that was stopped, and wait until it takes connections."""
    # Its log is no pipe: the server would keep that open, and this would wait for its end.
    _run(programs, folder, "pg_ctl", "--silent", "--wait", f"--log={folder / 'log'}", "start")


def promote(programs: Path, folder: Path) -> None:
    """Make a standby the primary."""
    _run(programs, folder, "pg_ctl", "--silent", "--wait", "promote")


def standby_of(folder: Path) -> Path:
    """The folder of a standby with the data of a server that was shut down; it follows nobody, and is not started."""
    copy = server_folder("standby")
    copy.rmdir()
    subprocess.run(["/bin/cp", "--archive", str(folder), str(copy)], check=True)
    with (copy / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(f"unix_socket_directories = '{copy}'\n")
    (copy / "data" / "standby.signal").touch()
    return copy


def stop(programs: Path, folder: Path, mode: str = "immediate") -> None:
    """Stop the server, in the middle of whatever it does unless the mode is another one of pg_ctl's."""
    _run(programs, folder, "pg_ctl", "--silent", "--wait", f"--mode={mode}", "stop")


def upgrade_cluster(old: Path, programs: Path, folder: Path) -> Path:
    """Run pg_upgrade on a server that was shut down; gives the folder of the new one, which is not started."""
    new = new_cluster(programs, *(["--no-data-checksums"] if (programs / "pg_checksums").exists() else []))
    _run(programs, new, "pg_upgrade", f"--old-bindir={old}", f"--new-bindir={programs}",
         f"--old-datadir={folder / 'data'}", f"--new-datadir={new / 'data'}", f"--socketdir={new}",
         "--username=postgres", "--no-sync")  # fmt: skip
    return new


def _run(programs: Path, folder: Path, program: str, *options: str) -> None:
    owner = _owner()
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


def _owner() -> Account | None:
    """Who runs a throw-away server of root's: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid)
