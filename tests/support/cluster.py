"""A throw-away server of any PostgreSQL's programs."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def throwaway_cluster(programs: Path) -> Iterator[Path]:
    """Start a server for the time of the block; gives the folder of its socket. Port 5432, superuser postgres."""
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    # Not pytest's folder: that is too long for a socket's path of 107 bytes, and keeps nobody out of it.
    folder = Path(tempfile.mkdtemp(prefix="mlops-db-cluster-", dir="/tmp"))
    if owner is not None:
        os.chown(folder, owner.pw_uid, owner.pw_gid)

    def run(program: str, *options: str) -> None:
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

    run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
    # Databases come and go by the hundred; nothing here has to survive a power failure.
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c port=5432 -c fsync=off"
    # Its log is no pipe: the server would keep that open, and this would wait for its end.
    run("pg_ctl", "--silent", "--wait", f"--log={folder / 'log'}", f"--options={options}", "start")
    try:
        yield folder
    finally:
        run("pg_ctl", "--silent", "--wait", "--mode=immediate", "stop")
        shutil.rmtree(folder)
