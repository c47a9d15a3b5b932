import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import sql

from mlops_db.server.create_database import CREATE_LOCK
from support.database import SCRIPTS, TIMEOUT_S, Database
from support.process import SECRET, assert_failed, closed_pipe

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]


@dataclass
class Server:
    """The test server as somebody sees it who creates databases; what is created here is dropped at the end."""

    database: Database
    cleanup: ExitStack = field(default_factory=ExitStack)

    def will_hold(self, name: str) -> str:
        """`name`, to be dropped when the test is over."""
        self.cleanup.callback(self.run_sql, "DROP DATABASE IF EXISTS {}", name)
        return name

    def role(self, name: str, privileges: str) -> dict[str, str]:
        """Make a role; returns the variables that connect as it."""
        self.run_sql(f"CREATE ROLE {{}} LOGIN {privileges} PASSWORD '{SECRET}'", name)
        self.cleanup.callback(self.run_sql, "DROP ROLE {}", name)
        return {"POSTGRES_USER": name, "POSTGRES_PASSWORD": SECRET}

    def create(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.database.run("mlops-db", "create", MLOPS_DB_NAME=name, **variables)

    def run_sql(self, statement: str, *names: str) -> None:
        self.database.connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def connected(self, name: str) -> psycopg.Connection[tuple[Any, ...]]:
        at = self.database.settings
        return psycopg.connect(host=at.host, port=at.port, user=at.user, password=at.password, dbname=name)

    def names(self) -> set[str]:
        return {name for (name,) in self.database.query("SELECT datname FROM pg_database")}

    def facts(self, name: str) -> tuple[str, str, list[str] | None]:
        """Owner, encoding and settings of a database."""
        ((owner, encoding, settings),) = self.database.query(
            """
            SELECT pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), s.setconfig
              FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
             WHERE d.datname = %s
            """,
            [name],
        )
        return owner, encoding, settings


@pytest.fixture
def server(empty: Database) -> Iterator[Server]:
    server = Server(empty)
    with server.cleanup:
        yield server


def created(name: str) -> str:
    return f"Creating database '{name}'...\n✅ Database '{name}' created successfully\n"


def there(name: str) -> str:
    return f"Database '{name}' already exists\n"


def test_the_first_run_creates_and_the_second_says_that_it_exists(server: Server) -> None:
    name = server.will_hold("mlops_test_twice")

    first = server.create(name)
    second = server.create(name)

    assert (first.returncode, first.stdout, first.stderr) == (0, created(name), "")
    assert (second.returncode, second.stdout, second.stderr) == (0, there(name), "")


def test_the_module_run_as_a_script_prints_the_same(server: Server) -> None:
    name = server.will_hold("mlops_test_script")
    script = (sys.executable, "-m", "mlops_db.server.create_database")

    first = server.database.run(*script, MLOPS_DB_NAME=name)
    second = server.database.run(*script, MLOPS_DB_NAME=name)
    failed = server.database.run(*script, MLOPS_DB_NAME="")

    assert (first.returncode, first.stdout, first.stderr) == (0, created(name), "")
    assert (second.returncode, second.stdout, second.stderr) == (0, there(name), "")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: ")


def test_a_role_that_may_create_databases_owns_an_utf_8_database_in_utc(server: Server) -> None:
    role = server.role("mlops_test_creator", "CREATEDB")
    name = server.will_hold("mlops_test_owned")

    done = server.create(name, **role)

    assert (done.returncode, done.stdout) == (0, created(name))
    assert server.facts(name) == ("mlops_test_creator", "UTF8", ["TimeZone=UTC"])
    with server.connected(name) as connection:
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)


@pytest.mark.parametrize(
    "name",
    [
        "my-db",
        'Mlops"x',
        "данные",
        "a=b",
        "postgres://x",
        "with space 'and' \"both\" quotes",
        "select; -- {} %s %(x)s",
        "back\\slash",
        "UPPER",
        "x" * 63,
        "я" * 31,
    ],
)
def test_any_name_that_postgresql_allows_is_taken_as_it_is(server: Server, name: str) -> None:
    server.will_hold(name)
    before = server.names()

    first = server.create(name)
    second = server.create(name)

    assert (first.returncode, first.stdout) == (0, created(name)), first.stderr
    assert (second.returncode, second.stdout) == (0, there(name)), second.stderr
    assert server.names() - before == {name}


@pytest.mark.parametrize("name", ["", "x" * 64, "я" * 32, "x" * 62 + "é"])
def test_a_name_that_postgresql_would_cut_is_refused_before_anything_happens(server: Server, name: str) -> None:
    before = server.names()

    # The port is nobody's: it is not even tried.
    done = server.create(name, POSTGRES_HOST="localhost", POSTGRES_PORT="1")

    assert done.returncode == 1
    assert done.stdout == ""
    assert_failed(done, "MLOPS_DB_NAME")
    assert server.names() == before


def test_of_ten_at_once_all_succeed_and_one_creates(server: Server) -> None:
    name = server.will_hold("mlops_test_rush")
    environment = server.database.environment | {"MLOPS_DB_NAME": name}
    rush = [
        subprocess.Popen(
            [SCRIPTS / "mlops-db", "create"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for _ in range(10)
    ]

    outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in rush]

    assert [process.returncode for process in rush] == [0] * 10, outputs
    assert sorted(outputs) == sorted([created(name), *[there(name)] * 9])
    assert server.facts(name)[2] == ["TimeZone=UTC"]


def test_a_role_that_may_not_create_databases_is_told_who_can_help(server: Server) -> None:
    role = server.role("mlops_test_reader", "NOCREATEDB")

    done = server.create("mlops_test_never", **role)

    assert done.returncode == 1
    assert_failed(done, 'role "mlops_test_reader" may not create databases', 'ALTER ROLE "mlops_test_reader" CREATEDB')
    assert "mlops_test_never" not in server.names()


def test_a_role_that_may_not_create_databases_uses_one_that_was_created_for_it(server: Server) -> None:
    role = server.role("mlops_test_reader", "NOCREATEDB")
    name = server.will_hold("mlops_test_given")
    server.run_sql("CREATE DATABASE {}", name)

    done = server.create(name, **role)

    assert (done.returncode, done.stdout, done.stderr) == (0, there(name), "")
    assert server.facts(name)[2] is None  # not its to change


def test_a_creator_that_was_stopped_half_way_is_completed(server: Server) -> None:
    role = server.role("mlops_test_creator", "CREATEDB")
    name = server.will_hold("mlops_test_half")
    server.run_sql("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0", name, "mlops_test_creator")

    done = server.create(name, **role)

    assert (done.returncode, done.stdout) == (0, there(name))
    assert server.facts(name)[2] == ["TimeZone=UTC"]


def test_a_database_that_holds_a_table_keeps_its_time_zone(empty: Database) -> None:
    empty.query("CREATE TABLE somebodys (at timestamp DEFAULT now())")

    done = empty.run("mlops-db", "create")

    assert (done.returncode, done.stdout) == (0, there(empty.settings.database))
    assert Server(empty).facts(empty.settings.database)[2] is None


def test_an_empty_database_keeps_a_time_zone_that_somebody_chose(empty: Database) -> None:
    Server(empty).run_sql("ALTER DATABASE {} SET timezone TO 'Europe/Berlin'", empty.settings.database)

    done = empty.run("mlops-db", "create")

    assert (done.returncode, done.stdout) == (0, there(empty.settings.database))
    assert Server(empty).facts(empty.settings.database)[2] == ["TimeZone=Europe/Berlin"]


def test_template1_serves_where_the_maintenance_database_lets_nobody_in(server: Server) -> None:
    role = server.role("mlops_test_creator", "CREATEDB")
    name = server.will_hold("mlops_test_template1")
    server.run_sql("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    server.cleanup.callback(server.run_sql, "GRANT CONNECT ON DATABASE postgres TO PUBLIC")

    done = server.create(name, **role)

    assert (done.returncode, done.stdout, done.stderr) == (0, created(name), "")


@pytest.fixture
def closed_server(server: Server) -> Server:
    """One that lets nobody but superusers into the databases that are there before ours."""
    for name in ("postgres", "template1"):
        server.run_sql("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", name)
        server.cleanup.callback(server.run_sql, "GRANT CONNECT ON DATABASE {} TO PUBLIC", name)
    return server


def test_one_that_exists_is_completed_without_any_other_database(closed_server: Server) -> None:
    role = closed_server.role("mlops_test_creator", "CREATEDB")
    name = closed_server.will_hold("mlops_test_half")
    closed_server.run_sql("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0", name, "mlops_test_creator")

    done = closed_server.create(name, **role)

    assert (done.returncode, done.stdout, done.stderr) == (0, there(name), "")
    assert closed_server.facts(name)[2] == ["TimeZone=UTC"]


def test_a_missing_database_without_another_one_to_connect_to_is_an_error(closed_server: Server) -> None:
    role = closed_server.role("mlops_test_creator", "CREATEDB")
    name = closed_server.will_hold("mlops_test_missing")

    done = closed_server.create(name, **role)

    assert done.returncode == 1
    assert_failed(
        done,
        f'database "{name}" does not exist',
        'permission denied for database "postgres"',
        f'CREATE DATABASE "{name}" OWNER "mlops_test_creator"',
    )


def test_ten_at_once_complete_one(server: Server) -> None:
    name = server.will_hold("mlops_test_half")
    server.run_sql("CREATE DATABASE {} TEMPLATE template0", name)
    command = [SCRIPTS / "mlops-db", "create"]
    environment = server.database.environment | {"MLOPS_DB_NAME": name}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    rush = [subprocess.Popen(command, env=environment, **pipes) for _ in range(10)]

    assert [process.communicate(timeout=TIMEOUT_S)[0] for process in rush] == [there(name)] * 10
    assert server.facts(name)[2] == ["TimeZone=UTC"]


def test_a_database_that_takes_no_connections_is_told_apart_from_a_missing_one(server: Server) -> None:
    name = server.will_hold("mlops_test_closed")
    server.run_sql("CREATE DATABASE {} ALLOW_CONNECTIONS false", name)

    done = server.create(name)

    assert done.returncode == 2
    assert_failed(done, "not currently accepting connections")


def test_a_reader_that_went_away_does_not_leave_the_database_uncreated(server: Server) -> None:
    name = server.will_hold("mlops_test_unread")

    with closed_pipe() as output:
        subprocess.run(
            [SCRIPTS / "mlops-db", "create"],
            env=server.database.environment | {"MLOPS_DB_NAME": name},
            stdout=output,
            timeout=TIMEOUT_S,
            check=True,
        )

    assert name in server.names()


@pytest.mark.parametrize(("wait", "seconds"), [("200ms", "0.2"), ("0s", "0")])
def test_a_wait_for_another_creator_ends_and_names_it(server: Server, wait: str, seconds: str) -> None:
    """Whoever may connect to `postgres` can take the lock by hand."""
    name = server.will_hold("mlops_test_waits")
    with server.connected("postgres") as other:
        other.execute("SET application_name = 'a guest'")
        other.execute("SELECT pg_advisory_lock(%s)", [CREATE_LOCK])
        assert_failed(
            server.create(name, MLOPS_LOCK_WAIT=wait),
            f"after {seconds} s: pid {other.info.backend_pid} (a guest, role ",
            "MLOPS_LOCK_WAIT",
        )
    assert server.create(name).returncode == 0
