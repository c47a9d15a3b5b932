"""The scratch database: who may enter it, and that neither it nor what was found in it gets lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mlops_db.drift.scratch import SCRATCH_PREFIX, STALE_AFTER_S, catalogue_of, scratch_database
from mlops_db.errors import ConnectionFailedError, MlopsDbError, NotPermittedError
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support.database import Database
from support.process import SECRET
from support.projects import edited_package
from support.sessions import PATIENCE_S, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

OWNER = "mlops_test_owner"


@pytest.fixture
def owner(empty: Database) -> Iterator[Settings]:
    """A role that owns the database and may not create another."""
    empty.query(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{SECRET}'")
    empty.query(f"ALTER DATABASE {empty.settings.database} OWNER TO {OWNER}")
    yield Settings(**(vars(empty.settings) | {"user": OWNER, "password": SECRET}))
    empty.query(f"REASSIGN OWNED BY {OWNER} TO {empty.settings.user}")
    empty.query(f"DROP OWNED BY {OWNER}")
    empty.query(f"DROP ROLE {OWNER}")


def test_a_role_that_may_not_create_databases_is_told_so(owner: Settings) -> None:
    with pytest.raises(NotPermittedError, match="scratch database") as refused, scratch_database(owner):
        pass
    assert f'ALTER ROLE "{OWNER}" CREATEDB' in refused.value.hint


def scratch_databases(database: Database) -> list[str]:
    found = database.query("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [SCRATCH_PREFIX])
    return sorted(name for (name,) in found)


def test_the_scratch_database_is_dropped_also_when_what_used_it_fails(empty: Database) -> None:
    def fail() -> None:
        with scratch_database(empty.settings) as scratch:
            assert scratch_databases(empty) == [scratch.database]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert scratch_databases(empty) == []


def test_scratch_databases_that_were_left_behind_go_after_an_hour(empty: Database) -> None:
    now = int(time.time())
    old, used, young = (f"{SCRATCH_PREFIX}{now - age}_x" for age in (STALE_AFTER_S + 60, STALE_AFTER_S + 90, 60))
    foreign = f"{SCRATCH_PREFIX}of_somebody"
    names = [old, used, young, foreign]
    try:
        for name in names:
            empty.query(f"CREATE DATABASE {name} TEMPLATE template0")
        with (
            closing(connect(Settings(**(vars(empty.settings) | {"database": used})))),
            scratch_database(empty.settings),
        ):
            pass
        assert scratch_databases(empty) == sorted([used, young, foreign])
        in_use = f"SELECT FROM pg_stat_activity WHERE datname = '{used}'"
        wait_until(lambda: not empty.query(in_use), "the end of the session in it")
        with scratch_database(empty.settings):
            pass
        assert scratch_databases(empty) == sorted([young, foreign])
    finally:
        for name in names:
            empty.query(f"DROP DATABASE IF EXISTS {name}")


def test_somebody_elses_stale_scratch_database_is_left_to_them(empty: Database, owner: Settings) -> None:
    empty.query(f"ALTER ROLE {OWNER} CREATEDB")
    theirs = f"{SCRATCH_PREFIX}{int(time.time()) - STALE_AFTER_S - 60}_x"
    empty.query(f"CREATE DATABASE {theirs} TEMPLATE template0")
    try:
        with scratch_database(owner):
            pass
        assert scratch_databases(empty) == [theirs]
    finally:
        empty.query(f"DROP DATABASE {theirs}")


@pytest.fixture
def creator(empty: Database, owner: Settings) -> Iterator[Settings]:
    """The role may create databases, and cannot end a superuser's session; what it left behind is dropped."""
    empty.query(f"ALTER ROLE {OWNER} CREATEDB")
    yield owner
    for name in scratch_databases(empty):
        empty.query(f"DROP DATABASE {name} WITH (FORCE)")


def entered(database: Database, name: str, user: str | None = None, password: str | None = None) -> psycopg.Connection:
    settings = database.settings
    return psycopg.connect(
        host=settings.host, port=settings.port, user=user or settings.user, password=password, dbname=name
    )


def test_nobody_else_may_enter_it(empty: Database, creator: Settings) -> None:
    empty.query(f"CREATE ROLE mlops_test_guest LOGIN PASSWORD '{SECRET}'")
    try:
        with (
            scratch_database(creator) as scratch,
            pytest.raises(psycopg.OperationalError, match="permission denied for database"),
        ):
            entered(empty, scratch.database, "mlops_test_guest", SECRET)
    finally:
        empty.query("DROP ROLE mlops_test_guest")


def test_a_role_with_a_single_connection_is_enough(empty: Database, creator: Settings) -> None:
    empty.query(f"ALTER ROLE {OWNER} CONNECTION LIMIT 1")
    assert catalogue_of(creator, "0001")
    assert scratch_databases(empty) == []


def test_a_login_that_becomes_the_owner_may_connect_to_it(empty: Database, creator: Settings) -> None:
    empty.query(f"CREATE ROLE mlops_test_login LOGIN NOINHERIT PASSWORD '{SECRET}' IN ROLE {OWNER}")
    empty.query(f"ALTER ROLE mlops_test_login SET role = {OWNER}")
    try:
        with scratch_database(replace(creator, user="mlops_test_login")) as scratch, closing(connect(scratch)):
            pass
    finally:
        empty.query("DROP ROLE mlops_test_login")


def test_a_foreign_session_in_it_keeps_it_and_not_the_answer(
    empty: Database, creator: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    with scratch_database(creator) as scratch:
        agent = entered(empty, scratch.database)
    with agent:
        assert scratch_databases(empty) == [scratch.database]

    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(f"warning: scratch database {scratch.database} stays: ")
    assert "being accessed by other users" in line


@pytest.mark.usefixtures("creator")
def test_check_answers_even_if_somebody_is_connected_to_the_scratch_database(empty: Database, tmp_path: Path) -> None:
    edited = edited_package(tmp_path / "edited")
    if empty.connection.info.server_version >= 150000:
        empty.query(f"GRANT ALL ON SCHEMA public TO {OWNER}")
    owner = {"POSTGRES_USER": OWNER, "POSTGRES_PASSWORD": SECRET}
    assert empty.run("alembic", "upgrade", "head", **owner).returncode == 0
    ended, agents = threading.Event(), []

    def enter() -> None:
        while not (ended.is_set() or agents):
            for name in scratch_databases(empty):
                with suppress(psycopg.OperationalError):
                    agents.append(entered(empty, name))
            time.sleep(0.005)

    agent = threading.Thread(target=enter)
    agent.start()
    try:
        done = empty.run("mlops-db", "check", **edited, **owner)
    finally:
        ended.set()
        agent.join(PATIENCE_S)
    assert agents
    agents[0].close()

    assert (done.returncode, done.stdout.splitlines()[-1].rpartition(": ")[2]) == (0, "no difference")
    (warning,) = done.stderr.splitlines()
    assert warning.startswith(f"warning: scratch database {SCRATCH_PREFIX}")


def test_sessions_that_were_ended_meanwhile_do_not_keep_it(empty: Database, creator: Settings) -> None:
    """As an idle_session_timeout ends them, or a server that was restarted."""
    with scratch_database(creator):
        empty.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{OWNER}'")

    assert scratch_databases(empty) == []


def test_without_a_connection_to_drop_it_by_the_answer_counts_all_the_same(
    empty: Database, creator: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    with scratch_database(creator) as scratch:
        empty.query(f"ALTER ROLE {OWNER} NOLOGIN")

    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: scratch database {scratch.database} stays: ")
    assert "not permitted to log in" in line


def test_an_error_in_it_is_raised_also_if_it_cannot_be_dropped(empty: Database, creator: Settings) -> None:
    def fail() -> None:
        with scratch_database(creator):
            empty.query(f"ALTER ROLE {OWNER} NOLOGIN")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_without_a_server_there_is_one_error(empty: Database, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConnectionFailedError), scratch_database(replace(empty.settings, host="localhost", port=1)):
        pass
    assert capfd.readouterr().err == ""


def test_the_error_has_the_server_s_reason_for_not_creating_a_database(empty: Database, creator: Settings) -> None:
    """As on a full disk, or on a standby."""
    empty.query(f"ALTER ROLE {OWNER} SET default_transaction_read_only = on")

    with pytest.raises(MlopsDbError) as refused, scratch_database(creator):
        pass
    assert "\n" not in f"{refused.value}{refused.value.hint}"
    assert scratch_databases(empty) == []


def test_a_stale_one_that_cannot_be_dropped_keeps_nobody_from_making_another(
    empty: Database, creator: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    stale = f"{SCRATCH_PREFIX}{int(time.time()) - STALE_AFTER_S - 60}_x"
    empty.query(f"CREATE DATABASE {stale} OWNER {OWNER} TEMPLATE template0")
    empty.query(f"ALTER DATABASE {stale} IS_TEMPLATE true")  # which nobody drops
    try:
        with scratch_database(creator):
            pass
        assert scratch_databases(empty) == [stale]
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"warning: scratch database {stale} stays: cannot drop a template database")
    finally:
        empty.query(f"ALTER DATABASE {stale} IS_TEMPLATE false")
