"""The pool, on real servers: what it lends, what it says when something is in the way, and what it survives."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
import sqlalchemy.exc
from psycopg2.extensions import ISOLATION_LEVEL_SERIALIZABLE
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from mlops_db import DatabaseManager, get_db_manager
from mlops_db.errors import (
    AuthenticationFailedError,
    BehindHeadError,
    ConnectionLostError,
    ContentionError,
    DatabaseMissingError,
    ManagerClosedError,
    MlopsDbError,
    NotPermittedError,
    PoolExhaustedError,
    RefusedError,
    ServerUnreachableError,
    StatementFailedError,
    StatementTimeoutError,
    UnknownRevisionError,
    UnmanagedDatabaseError,
)
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from mlops_db.storage.pool import IDLE_S
from support.cluster import connect_superuser, embedded_programs, settings_of, start, stop, throwaway_cluster
from support.database import Database, clean_environment
from support.forks import exit_code, forked
from support.process import SECRET

pytestmark = pytest.mark.libraries

WAIT_S = 60
INSERT = "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES (%s, '1')"
SESSION = """
SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('transaction_isolation'),
       current_setting('application_name')
"""
INSERT_A = "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('a', '1')"
LENT = ("connection", "session", "get_connection", "cursor")


@contextmanager
def manager_of(database: Database, **changes: Any) -> Iterator[DatabaseManager]:
    with DatabaseManager(replace(database.settings, **changes)) as manager:
        yield manager


def runs_of(head: Database) -> list[str]:
    return [run for (run,) in head.query("SELECT mlflow_run_id FROM model_versions ORDER BY id")]


def sessions_of(head: Database) -> set[int]:
    """The server processes of everybody but the test's own connection, without those that Citus has for itself."""
    return {
        pid
        for (pid,) in head.query(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            "   AND backend_type = 'client backend' AND application_name NOT LIKE 'citus%'"
        )
    }


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def pid_of(db: DatabaseManager) -> int:
    rows = db.execute_query("SELECT pg_backend_pid()")
    assert isinstance(rows, list)
    return int(rows[0][0])


def report(error: MlopsDbError) -> str:
    assert len(f"{error}\n{error.hint}".splitlines()) == 2
    return f"{error}\n{error.hint}"


def execute(lent: Any, statement: str) -> None:
    """Run SQL on whatever a manager lends."""
    if isinstance(lent, Session):
        lent.execute(text(statement))
    elif isinstance(lent, Connection):
        lent.exec_driver_sql(statement)
    elif isinstance(lent, psycopg2.extensions.cursor):
        lent.execute(statement)
    else:
        lent.cursor().execute(statement)


def run(db: DatabaseManager, lend: str, *statements: str | BaseException | Callable[[], object]) -> None:
    """Do something in a block: statements, things to call, and exceptions to raise."""
    with getattr(db, lend)() as lent:
        for statement in statements:
            if isinstance(statement, BaseException):
                raise statement
            if callable(statement):
                statement()
            else:
                execute(lent, statement)


# What importing does


def test_importing_it_loads_no_driver_and_connects_to_nothing() -> None:
    program = (
        "import sys, mlops_db; from mlops_db import DatabaseManager, get_db_manager; "
        "db = get_db_manager(); print(db, *{'sqlalchemy', 'psycopg2', 'alembic', 'rich', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(POSTGRES_HOST="/nonexistent", POSTGRES_PASSWORD=SECRET),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == "<DatabaseManager airflow@/nonexistent:5432/mlops>\n"


# What a block is: one transaction


def test_a_connection_commits_at_the_end_of_its_block(head: Database, db: DatabaseManager) -> None:
    with db.connection() as connection:
        connection.execute(text("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('a', '1')"))
        with connection.connection.cursor() as cursor:  # past SQLAlchemy, which knows of no transaction then
            cursor.execute(INSERT, ("b",))
        assert runs_of(head) == []
    assert runs_of(head) == ["a", "b"]


@pytest.mark.parametrize("lend", LENT)
@pytest.mark.parametrize("raised", [LookupError(), KeyboardInterrupt()], ids=repr)
def test_what_is_raised_in_a_block_rolls_it_back(
    head: Database, db: DatabaseManager, lend: str, raised: BaseException
) -> None:
    with pytest.raises(type(raised)) as caught:
        run(db, lend, INSERT_A, raised)
    assert caught.value is raised
    run(db, lend, "SELECT 1")
    assert runs_of(head) == []


def test_a_session_commits_at_each_commit(head: Database, db: DatabaseManager) -> None:
    def insert_two(session: Session) -> None:
        execute(session, INSERT_A)
        session.commit()
        execute(session, INSERT_A.replace("'a'", "'b'"))
        session.rollback()
        execute(session, INSERT_A.replace("'a'", "'c'"))

    with db.session() as session:
        insert_two(session)
        assert session.scalars(text("SELECT mlflow_run_id FROM model_versions ORDER BY id")).all() == ["a", "c"]
    assert runs_of(head) == ["a", "c"]


def test_a_raw_connection_commits_at_the_end_of_its_block(head: Database, db: DatabaseManager) -> None:
    with db.get_connection() as connection, connection.cursor() as cursor:
        cursor.execute(INSERT, ("a",))
        assert runs_of(head) == []
    assert runs_of(head) == ["a"]


def test_what_a_caller_sets_on_a_raw_connection_is_gone_afterwards(db: DatabaseManager) -> None:
    with db.get_connection() as connection:
        connection.set_session(ISOLATION_LEVEL_SERIALIZABLE, readonly=True, deferrable=True, autocommit=True)
    with db.get_connection() as again:
        assert again is connection
        assert (again.autocommit, again.isolation_level, again.readonly, again.deferrable) == (False, None, None, None)


def test_execute_query_returns_rows_or_how_many_were_changed(db: DatabaseManager) -> None:
    assert db.execute_query(INSERT, ("it's",)) == 1
    assert db.execute_query("SELECT mlflow_run_id, id FROM model_versions WHERE mlflow_run_id = %s", ["it's"]) == [
        ("it's", 1)
    ]
    assert db.execute_query("SELECT %(a)s + 1, '%%'", {"a": 1}) == [(2, "%")]
    assert db.execute_query("SELECT '%'") == [("%",)]
    assert db.execute_query("UPDATE model_versions SET model_version = '2' WHERE id = 7") == 0
    assert db.execute_query("DELETE FROM model_versions RETURNING model_version") == [("1",)]


def test_a_session_is_the_same_whatever_role_and_database_are_set_to(head: Database) -> None:
    name = head.settings.database
    head.query(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    head.query(f"ALTER DATABASE {name} SET search_path = nowhere")
    head.query(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with manager_of(head) as db:
        assert db.execute_query(SESSION) == [("UTC", "public", "read committed", "mlops-db")]
        assert db.execute_query(INSERT, ("a",)) == 1


def test_the_servers_list_of_sessions_names_the_job(head: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager_of(head, pool_application_name="churn-gate") as db:
        assert db.execute_query("SHOW application_name") == [("churn-gate",)]
    monkeypatch.setenv("PGAPPNAME", "from libpq")
    with manager_of(head) as db:
        assert db.execute_query("SHOW application_name") == [("from libpq",)]


def test_options_of_the_url_and_of_libpq_are_kept(head: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=7s")
    with manager_of(head) as db:
        assert db.execute_query("SHOW statement_timeout") == [("7s",)]
    with manager_of(head, parameters={"options": "-c statement_timeout=8s"}) as db:
        assert db.execute_query("SHOW statement_timeout") == [("8s",)]
        assert db.execute_query("SHOW timezone") == [("UTC",)]


# The revision


def test_an_empty_database_is_told_to_be_migrated(empty: Database) -> None:
    with manager_of(empty) as db:
        for call in (db.connection, db.session, db.cursor, db.get_connection):
            with pytest.raises(BehindHeadError) as caught, call():  # type: ignore[operator]
                pass
            assert "has no tables yet" in report(caught.value)
        db.ping()
        upgrade(empty.settings)
        assert db.execute_query("SELECT count(*) FROM model_versions") == [(0,)]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE alembic_version SET version_num = 'abcdef123456'", UnknownRevisionError),
        ("UPDATE alembic_version SET version_num = '0004'", BehindHeadError),
        ("DELETE FROM alembic_version", UnmanagedDatabaseError),
        ("DROP TABLE alembic_version", UnmanagedDatabaseError),
    ],
)
def test_a_database_at_another_revision_is_refused(
    head: Database, statement: str, expected: type[MlopsDbError]
) -> None:
    head.query(statement)
    with manager_of(head) as db:
        with pytest.raises(expected):
            db.execute_query(INSERT, ("a",))
        with pytest.raises(expected):
            db.wait_until_ready(0)
    assert runs_of(head) == []


def test_the_revision_is_looked_at_once(head: Database, db: DatabaseManager) -> None:
    db.execute_query("SELECT 1")
    head.query("UPDATE alembic_version SET version_num = 'abcdef123456'")
    assert db.execute_query("SELECT 1") == [(1,)]


# What is refused


def test_errors_that_a_job_can_meet_are_translated(head: Database, db: DatabaseManager) -> None:
    db.execute_query(INSERT, ("a",))
    for statement, parameters, expected, words in (
        (INSERT, ("a",), StatementFailedError, "duplicate key"),
        (INSERT, (None,), StatementFailedError, "23502"),
        ("SELECT 1 / %s", (0,), StatementFailedError, "division by zero"),
        ("DROP VIEW v_model_timeline; SELECT * FROM v_model_timeline", None, StatementFailedError, "mlops-db status"),
        ("DO $$ BEGIN RAISE 'no' USING HINT = 'go home'; END $$", None, RefusedError, "go home"),
    ):
        with pytest.raises(expected) as caught:
            db.execute_query(statement, parameters)
        assert words in report(caught.value)
        assert isinstance(caught.value.__cause__, psycopg2.Error)
        assert not caught.value.retryable
    with pytest.raises(StatementFailedError), db.connection() as connection:
        connection.exec_driver_sql(INSERT, ("a",))
    assert runs_of(head) == ["a"]


def test_defects_of_a_program_stay_what_they_are(db: DatabaseManager) -> None:
    with pytest.raises(psycopg2.errors.SyntaxError):
        db.execute_query("SELEKT 1")
    with pytest.raises(psycopg2.errors.UndefinedColumn):
        db.execute_query("SELECT nothing FROM model_versions")
    with pytest.raises(psycopg2.ProgrammingError), db.cursor() as cursor:
        cursor.fetchall()
    with pytest.raises(sqlalchemy.exc.StatementError), db.connection() as connection:
        connection.execute(text("SELECT :missing"))
    with pytest.raises(IndexError):
        db.execute_query("SELECT %s, %s", (1,))
    assert db.execute_query("SELECT 1") == [(1,)]


def test_a_role_without_privileges_is_told_which_one_it_lacks(head: Database) -> None:
    head.query("CREATE ROLE mlops_test_job LOGIN")
    try:
        as_job = manager_of(head, user="mlops_test_job", owner_role="mlops_test_owner")
        with as_job as db, pytest.raises(NotPermittedError, match="alembic_version") as caught:
            db.execute_query("SELECT 1")
        assert "let the owner run `mlops-db grant-writer mlops_test_job`." in report(caught.value)
        head.query("GRANT SELECT ON alembic_version, model_versions TO mlops_test_job")
        with manager_of(head, user="mlops_test_job") as db:
            assert db.models.production() is None
            with pytest.raises(NotPermittedError, match="model_versions"):
                db.models.register("a", "1")
    finally:
        head.query("DROP OWNED BY mlops_test_job; DROP ROLE mlops_test_job")


def test_a_statement_that_takes_too_long_gets_its_own_error(head: Database) -> None:
    with manager_of(head, parameters={"options": "-c statement_timeout=1s"}) as db:
        for lend in LENT:
            with pytest.raises(StatementTimeoutError, match="statement timeout") as caught:
                run(db, lend, INSERT_A, "SELECT pg_sleep(60)")
            assert "statement_timeout" in report(caught.value)
        assert db.execute_query("SELECT 1") == [(1,)]
    assert runs_of(head) == []


@pytest.mark.parametrize("asked_by", ["the block", "the database"])
def test_read_only_as_it_was_asked_for_is_not_worth_a_repetition(head: Database, asked_by: str) -> None:
    asked = "SET TRANSACTION READ ONLY" if asked_by == "the block" else "SELECT 1"
    if asked_by == "the database":
        head.query(f"ALTER DATABASE {head.settings.database} SET default_transaction_read_only = on")
    with manager_of(head, pool_size=1, pool_overflow=0) as db:
        before = pid_of(db)
        with pytest.raises(StatementFailedError, match="read-only transaction") as caught:
            run(db, "cursor", asked, INSERT_A)
        assert type(caught.value) is StatementFailedError
        assert not caught.value.retryable
        assert pid_of(db) == before


def test_the_error_names_the_session_that_holds_the_lock(head: Database, db: DatabaseManager) -> None:
    db.execute_query(INSERT, ("a",))
    with head.connection.transaction():
        head.query("LOCK TABLE model_versions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ContentionError) as caught:
            run(db, "cursor", "SET LOCAL lock_timeout = '50ms'", "SELECT * FROM model_versions")
    assert caught.value.retryable
    assert "try again" in report(caught.value)


# How many there are


def test_an_exhausted_pool_says_so(head: Database) -> None:
    with manager_of(head, pool_size=1, pool_overflow=1, pool_timeout=50) as db:
        with db.connection(), db.get_connection():
            for take in (db.connection, db.get_connection, db.session, db.cursor):
                with pytest.raises(PoolExhaustedError) as caught, take():  # type: ignore[operator]
                    pass
            assert "all 2 connections" in report(caught.value)
            assert "MLOPS_POOL_SIZE" in report(caught.value)
            assert caught.value.retryable
        with db.connection(), db.get_connection():
            pass


def test_threads_share_the_pool(head: Database) -> None:
    with manager_of(head, pool_size=2, pool_overflow=1) as db:

        def insert(number: int) -> int:
            db.execute_query(INSERT, (str(number),))
            return db.engine.pool.checkedout()  # type: ignore[attr-defined, no-any-return]

        with ThreadPoolExecutor(12) as threads:
            assert max(threads.map(insert, range(120))) <= 3
        until(lambda: len(sessions_of(head)) <= 2)
    assert sorted(map(int, runs_of(head))) == list(range(120))


def test_a_connection_is_replaced_when_it_gets_old(head: Database) -> None:
    with manager_of(head, pool_recycle=1) as db:
        before = pid_of(db)
        time.sleep(0.01)
        assert pid_of(db) != before
    with manager_of(head, pool_recycle=0) as db:
        before = pid_of(db)
        time.sleep(0.01)
        assert pid_of(db) == before


def test_closing_leaves_no_session_behind(head: Database) -> None:
    db = DatabaseManager(head.settings)
    with db.connection() as connection:
        db.execute_query("SELECT 1")
        db.close()
        until(lambda: len(sessions_of(head)) == 1)
        connection.exec_driver_sql(INSERT, ("a",))  # whoever is at work may finish
    until(lambda: sessions_of(head) == set())
    assert runs_of(head) == ["a"]
    for call in (db.connection, db.session, db.ping, db.wait_until_ready):
        with pytest.raises(ManagerClosedError):
            call()  # type: ignore[operator]


def test_an_engine_that_was_disposed_of_leaves_no_session_behind(head: Database) -> None:
    with manager_of(head) as db:
        db.execute_query("SELECT 1")
        with db.get_connection(), db.engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            db.engine.dispose()
            db.execute_query("SELECT 1")
            assert len(sessions_of(head)) == 3
        until(lambda: len(sessions_of(head)) == 1)  # those of the old pool are closed, the new one's stays
        db.engine.dispose()
        until(lambda: sessions_of(head) == set())
        db.execute_query("SELECT 1")
        db.engine.dispose(close=False)
        db.engine.dispose(close=False)
        assert len(sessions_of(head)) == 1
    until(lambda: sessions_of(head) == set())


def test_what_was_lent_through_the_engine_is_closed_when_it_comes_back(head: Database) -> None:
    db = DatabaseManager(head.settings)
    engine = db.engine
    raw = engine.raw_connection()
    with engine.begin() as connection:
        db.close()
        connection.exec_driver_sql(INSERT_A)
    raw.close()
    until(lambda: sessions_of(head) == set())
    assert runs_of(head) == ["a"]
    with engine.connect() as connection:  # whoever keeps the engine can use it, and keeps nothing open
        connection.exec_driver_sql("SELECT 1")
    until(lambda: sessions_of(head) == set())


@pytest.mark.parametrize("close", [True, False])
def test_a_child_that_disposes_of_its_engine(head: Database, db: DatabaseManager, close: bool) -> None:  # noqa: FBT001
    parents = pid_of(db)
    inherited = db.engine

    def child() -> None:
        inherited.dispose(close=close)
        own = pid_of(db)
        db.engine.dispose(close=close)
        assert pid_of(db) not in (own, parents)
        db.close()

    in_child(child)
    until(lambda: sessions_of(head) == {parents})
    assert pid_of(db) == parents


def test_a_process_has_one_shared_manager(monkeypatch: pytest.MonkeyPatch, head: Database) -> None:
    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(8) as threads:
        managers = {id(manager): manager for manager in threads.map(lambda _: get_db_manager(), range(32))}
    (db,) = managers.values()
    try:
        assert db.execute_query("SELECT current_database()") == [(head.settings.database,)]
        assert get_db_manager() is db
    finally:
        db.close()
    assert get_db_manager() is not db
    get_db_manager().close()


# What breaks


def test_a_session_that_the_server_ended_is_replaced_before_anybody_gets_it(head: Database) -> None:
    with manager_of(head) as db:
        with ThreadPoolExecutor(3) as threads:  # several idle ones
            list(threads.map(lambda _: db.execute_query("SELECT pg_sleep(0.05)"), range(3)))
        before = sessions_of(head)
        head.query("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (list(before),))
        until(lambda: sessions_of(head) == set())
        for _ in range(4):
            assert pid_of(db) not in before
            with db.connection() as connection:
                assert connection.scalar(text("SELECT pg_backend_pid()")) not in before


def test_a_connection_that_was_idle_for_long_is_asked(db: DatabaseManager) -> None:
    with db.get_connection() as connection:
        before = connection.info.backend_pid
    connection.idle_since -= 2 * IDLE_S  # type: ignore[attr-defined]
    with db.get_connection() as again:
        assert again is connection
        assert again.autocommit is False
        assert again.info.backend_pid == before


def test_without_a_look_at_it_a_dead_connection_fails_once(head: Database) -> None:
    with manager_of(head, pool_pre_ping=False) as db:
        pid = pid_of(db)
        head.query("SELECT pg_terminate_backend(%s::int)", (pid,))
        until(lambda: pid not in sessions_of(head))
        with pytest.raises(ConnectionLostError):
            db.execute_query("SELECT 1")
        assert db.execute_query("SELECT 1") == [(1,)]


@pytest.mark.parametrize("lend", LENT)
def test_a_session_that_ends_within_a_block_gets_its_own_error(head: Database, db: DatabaseManager, lend: str) -> None:
    def end_it() -> None:
        for pid in sessions_of(head):
            head.query("SELECT pg_terminate_backend(%s::int)", (pid,))
        until(lambda: sessions_of(head) == set())

    with pytest.raises(ConnectionLostError) as caught:
        run(db, lend, INSERT_A, end_it, "SELECT 1")
    assert caught.value.committed is False
    assert caught.value.retryable
    assert "nothing of it was stored" in report(caught.value)
    assert runs_of(head) == []
    assert db.execute_query("SELECT 1") == [(1,)]


def test_a_caller_who_ignores_the_break_gets_the_error_at_the_end(head: Database, db: DatabaseManager) -> None:
    def pass_over(connection: Any) -> None:
        head.query("SELECT pg_terminate_backend(%s::int)", (connection.info.backend_pid,))
        with suppress(psycopg2.OperationalError):
            execute(connection, "SELECT 1")

    with pytest.raises(ConnectionLostError) as caught, db.get_connection() as connection:
        pass_over(connection)
    assert caught.value.committed is False
    with pytest.raises(psycopg2.InterfaceError), db.get_connection() as connection:
        connection.close()
    assert db.execute_query("SELECT 1") == [(1,)]


def test_nobody_knows_what_became_of_a_commit_that_broke(head: Database, db: DatabaseManager) -> None:
    head.query("""
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER die AFTER INSERT ON model_versions DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION die();
    """)
    with pytest.raises(ConnectionLostError) as caught:
        db.execute_query(INSERT, ("a",))
    assert caught.value.committed is None
    assert not caught.value.retryable
    assert "may be stored" in report(caught.value)


def test_nobody_at_home(tmp_path: Path) -> None:
    db = DatabaseManager(Settings(host=str(tmp_path), password=None))
    for call in (db.ping, lambda: db.execute_query("SELECT 1"), lambda: db.wait_until_ready(0.3)):
        with pytest.raises(ServerUnreachableError) as caught:
            call()
        assert caught.value.retryable
        assert "no PostgreSQL answers" in report(caught.value)


def test_a_restart_of_the_server() -> None:
    programs = embedded_programs()
    with throwaway_cluster(programs) as folder:
        settings = settings_of(folder, "mlops")
        with DatabaseManager(settings) as db, ThreadPoolExecutor(2) as threads:
            with pytest.raises(DatabaseMissingError) as missing:
                db.ping()
            assert not missing.value.retryable
            waiting = threads.submit(db.wait_until_ready, WAIT_S)
            with connect_superuser(folder) as admin:
                admin.execute("CREATE DATABASE mlops")
            upgrade(settings)
            waiting.result()

            db.execute_query(INSERT, ("before",))
            interrupted = threads.submit(db.execute_query, "SELECT pg_sleep(600)")
            until(lambda: db.execute_query("SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)'") != [])
            stop(programs, folder)
            with pytest.raises(ConnectionLostError) as caught:
                interrupted.result(WAIT_S)
            assert caught.value.committed is False
            with pytest.raises(ServerUnreachableError):
                db.execute_query("SELECT 1")
            with pytest.raises(ServerUnreachableError):
                db.wait_until_ready(0.3)

            waiting = threads.submit(db.wait_until_ready, WAIT_S)
            start(programs, folder)
            waiting.result()
            assert db.execute_query("SELECT mlflow_run_id FROM model_versions") == [("before",)]

            stop(programs, folder)
            start(programs, folder)
            assert db.execute_query("SELECT mlflow_run_id FROM model_versions") == [("before",)]


def test_waiting_ends_with_the_last_reason(empty: Database) -> None:
    with manager_of(empty) as db, pytest.raises(BehindHeadError):
        db.wait_until_ready(0.3)


def test_errors_that_waiting_cannot_resolve_are_raised_at_once(empty: Database) -> None:
    with manager_of(empty, user="nobody_of_that_name") as db, pytest.raises(AuthenticationFailedError):
        db.wait_until_ready(10 * WAIT_S)


# Forks


def in_child(action: Callable[[], object]) -> None:
    assert exit_code(forked(action)) == 0


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_child_has_connections_of_its_own(head: Database, looked_at: bool) -> None:  # noqa: FBT001  (a parameter)
    def child() -> None:
        assert pid_of(db) != parents
        db.execute_query(INSERT, ("child",))
        db.close()

    with manager_of(head, pool_pre_ping=looked_at) as db:
        parents = pid_of(db)
        in_child(child)
        assert pid_of(db) == parents
        db.execute_query(INSERT, ("parent",))
    assert runs_of(head) == ["child", "parent"]


def test_what_is_in_use_in_the_parent_does_not_count_in_the_child(head: Database) -> None:
    with manager_of(head, pool_size=1, pool_overflow=0, pool_timeout=100) as db, db.connection():
        in_child(db.ping)


def test_a_child_that_was_forked_within_a_block_leaves_it_alone(head: Database, db: DatabaseManager) -> None:
    def child(connection: Any) -> None:
        with pytest.raises(sqlalchemy.exc.StatementError, match="forked"):
            connection.exec_driver_sql("SELECT 1")
        db.execute_query(INSERT, ("child",))

    with db.connection() as connection:
        connection.exec_driver_sql(INSERT, ("parent",))
        in_child(lambda: child(connection))
        assert connection.scalar(text("SELECT count(*) FROM model_versions")) == 2
    assert sorted(runs_of(head)) == ["child", "parent"]


@pytest.mark.parametrize("lend", LENT)
def test_a_child_that_leaves_a_block_neither_commits_nor_rolls_back(
    head: Database, db: DatabaseManager, lend: str
) -> None:
    """As after os.fork() in a block, where the child's way out leads through the block's end."""
    block = ExitStack()
    lent = block.enter_context(getattr(db, lend)())
    execute(lent, INSERT_A)

    def to_its_end() -> None:
        with pytest.raises(RefusedError) as caught, block:
            pass
        assert "forked" in report(caught.value)

    def by_sys_exit() -> None:
        with suppress(SystemExit), block:
            sys.exit()

    def by_a_statement() -> None:
        with pytest.raises(RefusedError, match="forked"), block:
            execute(lent, "SELECT 1")

    in_child(to_its_end)
    in_child(by_sys_exit)
    if lend != "cursor":  # it was made before the fork
        in_child(by_a_statement)
    assert runs_of(head) == []
    block.close()
    assert runs_of(head) == ["a"]


def test_a_child_that_closes_what_it_inherited_leaves_the_parents_sessions_alone(
    head: Database, db: DatabaseManager
) -> None:
    parents = pid_of(db)
    engine = db.engine  # of the parent, whatever process asks it

    def child() -> None:
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT pg_backend_pid()")) != parents
        engine.dispose()

    in_child(child)
    until(lambda: sessions_of(head) == {parents})
    assert pid_of(db) == parents


def test_a_prefork_server(head: Database) -> None:
    """Workers that end as gunicorn's do: by sys.exit and by SIGTERM, with the parent's pool open."""
    program = """
import os, signal, sys, time
from mlops_db import get_db_manager
db = get_db_manager()
db.execute_query("SELECT 1")
insert = "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES (%s, '1')"
with db.connection() as held:
    held.exec_driver_sql(insert, ("parent",))
    children = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            db.execute_query(insert, (str(number),))
            if number == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            sys.exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
assert db.execute_query("SELECT count(*) FROM model_versions") == [(4,)]
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=head.environment, capture_output=True, encoding="utf-8",
        timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(runs_of(head)) == ["0", "1", "2", "parent"]


@pytest.mark.parametrize("block", ["connection", "cursor", "get_connection", "session"])
def test_a_failure_that_a_block_swallows_is_no_success(head: Database, block: str) -> None:
    def swallow(lent: Any) -> None:
        run = {
            "connection": lambda: lent.exec_driver_sql,
            "cursor": lambda: lent.execute,
            "get_connection": lambda: lent.cursor().execute,
            "session": lambda: lent.connection().exec_driver_sql,
        }[block]()
        run("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run-1', '1')")
        with suppress(Exception):
            run("SELECT 1 / 0")

    with DatabaseManager(head.settings) as db:
        with pytest.raises(StatementFailedError, match="nothing of the block was stored"), getattr(db, block)() as lent:
            swallow(lent)
        assert db.execute_query("SELECT count(*) FROM model_versions") == [(0,)]


@pytest.mark.parametrize("block", ["connection", "session"])
def test_what_broke_after_a_commit_of_the_block_s_own_may_be_stored(head: Database, block: str) -> None:
    def commit_and_lose(lent: Any) -> None:
        lent.execute(text("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run-1', '1')"))
        lent.commit()
        pid = lent.execute(text("SELECT pg_backend_pid()")).scalar_one()
        head.query("SELECT pg_terminate_backend(%s::int)", [pid])
        lent.execute(text("SELECT 1"))

    with DatabaseManager(head.settings) as db:
        with pytest.raises(ConnectionLostError) as lost, getattr(db, block)() as lent:
            commit_and_lose(lent)
        assert (lost.value.committed, lost.value.retryable) == (None, False)
        assert db.execute_query("SELECT count(*) FROM model_versions") == [(1,)]
