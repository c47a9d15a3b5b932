"""Whose failure it was: what the lent connection met is told in our words, and by bulk calls as by single ones."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest
import sqlalchemy.exc
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from mlops_db import DatabaseManager
from mlops_db.errors import (
    ConnectionLostError,
    ContentionError,
    InvalidMetricError,
    MlopsDbError,
    PoolExhaustedError,
    StatementFailedError,
    StatementTimeoutError,
)
from support.database import Database

pytestmark = pytest.mark.libraries

LENT = ("connection", "session", "get_connection", "cursor")
WAIT_S = 60
INSERT = "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('a', '1')"
LOCKED = "DO $$ BEGIN RAISE 'locked' USING ERRCODE = '55P03'; END $$"
OTHER_SESSIONS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
"""
GIVEN_UP = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction (aborted)'
"""
LATE = """
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE 'late' USING ERRCODE = '40001'; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON model_versions DEFERRABLE INITIALLY DEFERRED
   FOR EACH ROW EXECUTE FUNCTION late();
"""


def other_connection(head: Database) -> psycopg2.extensions.connection:
    settings = head.settings
    return psycopg2.connect(
        host=settings.host, port=settings.port, user=settings.user, dbname="postgres", password=settings.password
    )


def other_engine(head: Database) -> Engine:
    return create_engine("postgresql+psycopg2://", creator=lambda: other_connection(head), poolclass=NullPool)


def execute(lent: Any, statement: str) -> None:
    if isinstance(lent, Session):
        lent.execute(text(statement))
    elif isinstance(lent, sqlalchemy.Connection):
        lent.exec_driver_sql(statement)
    elif isinstance(lent, psycopg2.extensions.cursor):
        lent.execute(statement)
    else:
        lent.cursor().execute(statement)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def terminate(head: Database, *pids: int) -> None:
    head.query("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (list(pids),))
    until(lambda: head.query("SELECT 1 FROM pg_stat_activity WHERE pid = ANY (%s)", (list(pids),)) == [])


def within(db: DatabaseManager, lend: str, *steps: str | Callable[[], object]) -> None:
    """Run statements, and call things, in a block."""
    with getattr(db, lend)() as lent:
        for step in steps:
            if callable(step):
                step()
            else:
                execute(lent, step)


# Errors of others


def a_statement(head: Database) -> None:
    with closing(other_connection(head)) as other, other.cursor() as cursor:
        cursor.execute(LOCKED)


def a_commit(head: Database) -> None:
    with closing(other_connection(head)) as other:
        other.cursor().execute(f"CREATE TABLE model_versions (id int); {LATE}; INSERT INTO model_versions VALUES (1)")
        other.commit()


def a_broken_connection(head: Database) -> None:
    with closing(other_connection(head)) as other:
        terminate(head, other.info.backend_pid)
        other.cursor().execute("SELECT 1")


def a_missing_server(head: Database) -> None:
    psycopg2.connect(host=head.settings.host, port=1)


def another_engine(head: Database) -> None:
    with other_engine(head).connect() as other:
        other.exec_driver_sql(LOCKED)


def another_engine_s_commit(head: Database) -> None:
    with other_engine(head).begin() as other:
        other.exec_driver_sql(f"CREATE TABLE model_versions (id int); {LATE}; INSERT INTO model_versions VALUES (1)")


def sqlite_by_sqlalchemy(_: Database) -> None:
    with create_engine("sqlite://").connect() as other:
        other.exec_driver_sql("SELECT * FROM nowhere")


def sqlite_itself(_: Database) -> None:
    with closing(sqlite3.connect(":memory:")) as other:
        other.execute("SELECT * FROM nowhere")


def psycopg_3(head: Database) -> None:
    head.query(LOCKED)


def a_web_service(_: Database) -> None:
    raise ConnectionResetError("peer")


def another_manager(head: Database) -> None:
    with DatabaseManager(head.settings) as other:
        other.execute_query(LOCKED)


def another_manager_s_pool(head: Database) -> None:
    with (
        DatabaseManager(replace(head.settings, pool_size=1, pool_overflow=0, pool_timeout=10)) as other,
        other.cursor(),
    ):
        other.execute_query("SELECT 1")


OTHERS: tuple[Callable[[Database], None], ...] = (
    a_statement, a_commit, a_broken_connection, a_missing_server, another_engine, another_engine_s_commit,
    sqlite_by_sqlalchemy, sqlite_itself, psycopg_3, a_web_service, another_manager, another_manager_s_pool,
)  # fmt: skip


@pytest.mark.parametrize("fail", OTHERS, ids=lambda fail: fail.__name__)
def test_another_s_failure_within_a_block_stays_what_it_is(
    head: Database, db: DatabaseManager, fail: Callable[[Database], None]
) -> None:
    met: list[BaseException] = []

    def meet() -> None:
        try:
            fail(head)
        except BaseException as error:
            met.append(error)
            raise

    def rows() -> Iterator[dict[str, Any]]:
        yield {"metric_type": "drift", "metric_name": "psi", "metric_value": 1}
        meet()

    for lend in LENT:
        with pytest.raises(Exception) as caught:  # noqa: PT011  (any; it is the same one)
            within(db, lend, INSERT, meet)
        assert caught.value is met.pop()
    with pytest.raises(Exception) as caught:  # noqa: PT011  (any; it is the same one)
        db.monitoring.log_many(rows())
    assert caught.value is met.pop()
    assert head.query("SELECT 1 FROM model_versions") == []
    assert head.query("SELECT 1 FROM monitoring_metrics") == []


# Those of the connection


@pytest.mark.parametrize("lend", LENT)
def test_the_lent_connection_s_failure_wins_over_another_one(head: Database, db: DatabaseManager, lend: str) -> None:
    def pass_over_another() -> None:
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            a_statement(head)

    with pytest.raises(ContentionError) as caught:
        within(db, lend, pass_over_another, LOCKED)
    assert caught.value.retryable
    head.query(LATE)
    with pytest.raises(ContentionError, match="late") as caught:
        within(db, lend, INSERT)
    assert caught.value.retryable


def test_a_block_that_committed_a_part_is_never_retryable(head: Database, db: DatabaseManager) -> None:
    def by_commit(connection: Any) -> None:
        connection.cursor().execute(INSERT)
        connection.commit()

    def by_autocommit(connection: Any) -> None:
        connection.autocommit = True
        connection.cursor().execute(INSERT)

    def meet_a_lock(store: Callable[[Any], None]) -> None:
        with db.get_connection() as connection:
            store(connection)
            connection.cursor().execute(LOCKED)

    def end(store: Callable[[Any], None]) -> None:
        with db.get_connection() as connection:
            store(connection)
            terminate(head, connection.info.backend_pid)
            connection.cursor().execute("SELECT 1")

    for store in (by_commit, by_autocommit):
        with pytest.raises(ContentionError) as contention:
            meet_a_lock(store)
        assert not contention.value.retryable
        assert "may be stored" in str(contention.value.hint)
        head.query("DELETE FROM model_versions")
        with pytest.raises(ConnectionLostError) as lost:
            end(store)
        assert (lost.value.committed, lost.value.retryable) == (None, False)
        assert len(head.query("SELECT 1 FROM model_versions")) == 1
        head.query("DELETE FROM model_versions")


@pytest.mark.parametrize("lend", LENT)
def test_a_commit_by_hand_is_not_retryable(head: Database, db: DatabaseManager, lend: str) -> None:
    with pytest.raises(ContentionError) as caught:
        within(db, lend, INSERT, "COMMIT", LOCKED)
    assert (caught.value.retryable, "may be stored" in caught.value.hint) == (False, True)
    assert len(head.query("SELECT 1 FROM model_versions")) == 1


def test_a_block_that_continues_after_its_connection_broke_gets_that_error(head: Database, db: DatabaseManager) -> None:
    def go_on(lend: str, *statements: str) -> None:
        with getattr(db, lend)() as lent:
            execute(lent, INSERT)
            terminate(head, *(pid for (pid,) in head.query(OTHER_SESSIONS)))
            with suppress(psycopg2.Error, sqlalchemy.exc.SQLAlchemyError):
                execute(lent, "SELECT 1")
            for statement in statements:
                execute(lent, statement)

    for lend in LENT:
        for statements in ((), ("SELECT 1",)):
            with pytest.raises(ConnectionLostError) as caught:
                go_on(lend, *statements)
            assert (caught.value.committed, caught.value.retryable) == (False, True)
    assert head.query("SELECT 1 FROM model_versions") == []


def test_a_transaction_begun_by_hand_is_committed_at_the_end(head: Database, db: DatabaseManager) -> None:
    with db.get_connection() as connection:
        connection.autocommit = True
        connection.cursor().execute(f"BEGIN; {INSERT}")
    assert len(head.query("SELECT 1 FROM model_versions")) == 1


# Bulk calls


@contextmanager
def refusing(head: Database, code: str) -> Iterator[None]:
    """Let the server fail so at a metric with the name bad."""
    head.query(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.metric_name = 'bad' THEN RAISE 'refused' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON monitoring_metrics FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    yield
    head.query("DROP FUNCTION refuse() CASCADE")


def row(name: str, **given: Any) -> dict[str, Any]:
    return {"metric_type": "drift", "metric_name": name, "metric_value": 1.0, **given}


LARGE = row("good", metadata="x" * (1 << 15))


def breaks_off() -> None:
    raise LookupError("the source")


def until_given_up(head: Database) -> None:
    until(lambda: head.query(GIVEN_UP) != [])


@pytest.mark.plain_postgresql(reason="Citus takes no triggers of others on a distributed table")
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("40P01", ContentionError),
        ("40001", ContentionError),
        ("55P03", ContentionError),
        ("57014", StatementTimeoutError),
        ("53100", StatementFailedError),
    ],
)
def test_bulk_calls_raise_the_same_errors_as_single_ones(
    head: Database, db: DatabaseManager, code: str, expected: type[MlopsDbError]
) -> None:
    with refusing(head, code):
        with pytest.raises(expected) as single:
            db.monitoring.log("drift", "bad", 1)

        def then(fail: Callable[[], Any]) -> Iterator[dict[str, Any]]:
            yield row("bad")
            yield from (LARGE, LARGE)  # libpq sends whole blocks only, and the server reads whole messages
            until_given_up(head)
            fail()

        def meets_another() -> None:
            a_statement(head)

        def interrupted() -> None:
            raise KeyboardInterrupt

        for fail in (list, meets_another, breaks_off):
            with pytest.raises(expected) as bulk:
                db.monitoring.log_many(then(fail))
            assert type(bulk.value) is type(single.value)
            assert (bulk.value.retryable, bulk.value.hint) == (single.value.retryable, single.value.hint)
        with pytest.raises(KeyboardInterrupt):
            db.monitoring.log_many(then(interrupted))
    assert db.execute_query("SELECT count(*) FROM monitoring_metrics") == [(0,)]


def test_a_reader_s_own_failure_is_reported_as_it_is(head: Database, db: DatabaseManager) -> None:
    def then(fail: Callable[[], Any]) -> Iterator[dict[str, Any]]:
        yield LARGE
        fail()

    def reads_exhausted() -> None:
        another_manager_s_pool(head)

    with pytest.raises(PoolExhaustedError):
        db.monitoring.log_many(then(reads_exhausted))
    with pytest.raises(LookupError):
        db.monitoring.log_many(then(breaks_off))
    with pytest.raises(InvalidMetricError):
        db.monitoring.log_many([LARGE, row("bad", metric_value="x")])


def test_a_session_that_ends_under_a_bulk_call_gets_its_own_error(head: Database, db: DatabaseManager) -> None:
    def ended(fail: Callable[[], Any]) -> Iterator[dict[str, Any]]:
        yield LARGE
        terminate(head, *(pid for (pid,) in head.query(OTHER_SESSIONS)))
        yield from [LARGE] * 100
        fail()

    for fail in (list, breaks_off):
        with pytest.raises(ConnectionLostError) as caught:
            db.monitoring.log_many(ended(fail))
        assert caught.value.retryable
    assert db.execute_query("SELECT count(*) FROM monitoring_metrics") == [(0,)]


@pytest.mark.plain_postgresql(reason="on Citus the same words are about a worker")
@pytest.mark.parametrize(
    "words",
    [
        "could not commit transaction for shard 1 on h:1",
        "deadlock detected on remote node x@h:1",
        "connection to the remote node x@h:1 failed: server closed the connection",
        "could not find valid entry for shard 5",
    ],
)
def test_words_of_citus_mean_nothing_without_it(db: DatabaseManager, words: str) -> None:
    with pytest.raises(StatementFailedError, match=words.partition(":")[0]) as raised, db.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE '{words}' USING ERRCODE = 'XX000'; END $$")
    assert type(raised.value) is StatementFailedError
