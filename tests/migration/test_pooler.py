"""A migration run through a transaction-pooling PgBouncer, the real one."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mlops_db.errors import PoolerError
from mlops_db.migration import commands
from mlops_db.settings import Settings
from support.database import Database, clean_environment, run_command
from support.process import told
from support.snapshot import everything

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
PORT = 6432
NOBODY = 65534
START_TIMEOUT_S = 10

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="needs PgBouncer (Debian's package pgbouncer)")

Through = Callable[[Database], Settings]


@contextmanager
def pgbouncer(database: Database, ignored: str) -> Iterator[Settings]:
    """A PgBouncer in front of the database; on a Unix socket, so that no port can be taken."""
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
    """Who PgBouncer can run as if we are root, which it refuses: the user who runs the server may enter its socket."""
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


def _connect(settings: Settings) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(host=settings.host, port=settings.port, user=settings.user, dbname=settings.database)


@pytest.fixture(
    params=["extra_float_digits", "extra_float_digits,options"], ids=["refuses the options", "ignores the options"]
)
def through(request: pytest.FixtureRequest) -> Iterator[Through]:
    """Makes settings that lead to a database through PgBouncer."""
    with ExitStack() as stack:
        yield lambda database: stack.enter_context(pgbouncer(database, request.param))


def environment_of(settings: Settings) -> dict[str, str]:
    return clean_environment(
        POSTGRES_HOST=settings.host,
        POSTGRES_PORT=str(settings.port),
        POSTGRES_USER=settings.user,
        POSTGRES_PASSWORD="",
        MLOPS_DB_NAME=settings.database,
    )


def test_the_pooler_works_for_everything_else(head: Database, through: Through) -> None:
    with _connect(through(head)) as connection:
        assert connection.execute("SELECT count(*) FROM model_versions").fetchone() == (0,)


def test_alembic_says_why_it_does_not_run_through_a_pooler(empty: Database, through: Through) -> None:
    before = everything(empty)
    environment = environment_of(through(empty))

    done = run_command("alembic", "upgrade", "head", environment=environment)

    told(done, "PgBouncer", "nothing was changed", "POSTGRES_HOST")
    assert everything(empty) == before


def test_no_command_that_changes_anything_runs_through_a_pooler(head: Database, through: Through) -> None:
    before = everything(head)
    settings = through(head)

    for target in ("base", "-1"):
        with pytest.raises(PoolerError):
            commands.downgrade(settings, target)
    with pytest.raises(PoolerError):
        commands.upgrade(settings)

    assert everything(head) == before


def test_status_and_history_answer_through_a_pooler(head: Database, through: Through) -> None:
    environment = environment_of(through(head))

    status = run_command("mlops-db", "status", environment=environment)
    history = run_command("mlops-db", "history", environment=environment)

    assert (status.returncode, status.stderr) == (0, "")
    assert "(head)" in status.stdout
    assert (history.returncode, history.stderr) == (0, "")
    assert "0001" in history.stdout
