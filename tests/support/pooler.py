"""A real PgBouncer in front of a database, in transaction mode."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlops_db.settings import Settings
from support.database import Database

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
PORT = 6432
NOBODY = 65534
START_TIMEOUT_S = 60


@contextmanager
def pgbouncer(database: Database, ignored: str) -> Iterator[Settings]:
    """Run a PgBouncer in front of the database during the block. It uses a Unix socket, so no port can be in use."""
    server = database.settings
    folder = Path(tempfile.mkdtemp(prefix="mlops-db-bouncer-"))
    account = _account(server)
    where = {"host": server.host, "port": server.port, "dbname": server.database, "user": server.user}
    if server.password:
        where["password"] = server.password
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{server.database} = {' '.join(f'{key}={_value(value)}' for key, value in where.items())}\n"
        "[pgbouncer]\nlisten_addr =\nauth_type = any\npool_mode = transaction\nlogfile = log\n"
        f"listen_port = {PORT}\nunix_socket_dir = {folder}\nignore_startup_parameters = {ignored}\n",
        encoding="utf-8",
    )
    if account is not None:
        os.chown(folder, account, -1)
        (folder / "pgbouncer.ini").chmod(0o644)
    assert PGBOUNCER is not None
    process = subprocess.Popen(
        [PGBOUNCER, "-q", "pgbouncer.ini"],
        cwd=folder,
        user=account,
        extra_groups=None if account is None else [],
        stderr=subprocess.DEVNULL,
    )
    settings = replace(server, host=str(folder), port=PORT)
    try:
        _wait_for(process, folder)
        yield settings
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _account(server: Settings) -> int | None:
    """The user that runs PgBouncer if root runs the tests: PgBouncer refuses root. This user can open the socket."""
    if os.geteuid() != 0:
        return None
    path = Path(server.host) / f".s.PGSQL.{server.port}"
    return path.stat().st_uid if path.exists() else NOBODY


def _value(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _wait_for(process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(folder / f".s.PGSQL.{PORT}"):
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
        assert time.monotonic() < deadline, "PgBouncer does not answer"
        time.sleep(0.02)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
