"""What one caller does to a connection is nobody else's: it comes back as it was, or not at all."""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import extensions
from psycopg2.extensions import ISOLATION_LEVEL_SERIALIZABLE
from psycopg2.extras import NamedTupleCursor, RealDictCursor
from sqlalchemy.exc import SQLAlchemyError

from mlops_db import DatabaseManager
from mlops_db.errors import StatementFailedError
from mlops_db.migration.commands import upgrade
from mlops_db.server.connection import connect
from support.cluster import connect_superuser, embedded_programs, settings_of, throwaway_cluster
from support.database import Database
from support.sessions import wait_until

pytestmark = pytest.mark.libraries

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone.utc)
OTHER_ROLE = "mlops_test_lent"
OTHER_SESSIONS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
   AND backend_type = 'client backend' AND application_name NOT LIKE 'citus%'
"""
WORDS = 'it\'s 20 °C, "ε" \\ \n %s'
SHOUTED = extensions.new_type(extensions.UNICODE.values, "SHOUTED", lambda value, _: value and value.upper())
COARSE = extensions.new_type(
    (*extensions.FLOAT.values, *extensions.DECIMAL.values, *extensions.LONGINTEGER.values), "COARSE", lambda *_: -1.0
)
NO_MOMENTS = extensions.new_type(
    (*extensions.PYDATETIMETZ.values, *extensions.PYINTERVAL.values, *extensions.BOOLEAN.values),
    "NONE",
    lambda *_: None,
)

numbers = itertools.count()


@pytest.fixture
def db(head: Database) -> Iterator[DatabaseManager]:
    with DatabaseManager(replace(head.settings, pool_size=2, pool_overflow=1)) as manager:
        yield manager


# Ways to get at a connection of the pool


def of_cursor(db: DatabaseManager) -> Any:
    @contextmanager
    def lent() -> Iterator[Any]:
        with db.cursor() as cursor:
            yield cursor.connection

    return lent()


def of_sqlalchemy(db: DatabaseManager) -> Any:
    @contextmanager
    def lent() -> Iterator[Any]:
        with db.connection() as connection:
            yield connection.connection.driver_connection

    return lent()


def of_session(db: DatabaseManager) -> Any:
    @contextmanager
    def lent() -> Iterator[Any]:
        with db.session() as session:
            yield session.connection().connection.driver_connection

    return lent()


def of_engine(db: DatabaseManager) -> Any:
    @contextmanager
    def lent() -> Iterator[Any]:
        with db.engine.connect() as connection:
            yield connection.connection.driver_connection

    return lent()


def of_raw_engine(db: DatabaseManager) -> Any:
    @contextmanager
    def lent() -> Iterator[Any]:
        raw = db.engine.raw_connection()
        try:
            yield raw.driver_connection
        finally:
            raw.close()

    return lent()


LENDERS: tuple[Callable[[DatabaseManager], Any], ...] = (
    DatabaseManager.get_connection, of_cursor, of_sqlalchemy, of_session, of_engine, of_raw_engine,
)  # fmt: skip


# What can be done with one


def executing(*statements: str) -> Callable[[Any], None]:
    def execute(connection: Any) -> None:
        with connection.cursor(cursor_factory=extensions.cursor) as cursor:
            for statement in statements:
                cursor.execute(statement)

    return execute


def assigned(**attributes: Any) -> Callable[[Any], None]:
    def assign(connection: Any) -> None:
        for name, value in attributes.items():
            setattr(connection, name, value)

    return assign


def alone(*statements: str) -> Callable[[Any], None]:
    def execute(connection: Any) -> None:
        connection.autocommit = True
        executing(*statements)(connection)

    return execute


def open_cursors(connection: Any) -> None:
    for withhold in (False, True):
        cursor = connection.cursor(f"left open {withhold}", withhold=withhold)
        cursor.execute("SELECT generate_series(1, 10000)")
        cursor.fetchone()


def leave_a_large_object(connection: Any) -> None:
    connection.lobject(0, "wb").write(b"x")


def leave_a_copy(connection: Any) -> None:
    class Full:
        def write(self, _: bytes) -> None:
            raise OSError("no space left")

    with connection.cursor() as cursor, suppress(OSError):
        cursor.copy_expert("COPY (SELECT generate_series(1, 100000)) TO STDOUT", Full())
    connection.rollback()


CHANGES: dict[str, Callable[[Any], None]] = {
    "RealDictCursor": assigned(cursor_factory=RealDictCursor),
    "NamedTupleCursor": assigned(cursor_factory=NamedTupleCursor),
    "autocommit": assigned(autocommit=True),
    "set_session": lambda connection: connection.set_session(ISOLATION_LEVEL_SERIALIZABLE, True, True, True),  # noqa: FBT003
    "serializable": assigned(isolation_level=ISOLATION_LEVEL_SERIALIZABLE),
    "readonly": assigned(readonly=True, deferrable=True),
    "set_client_encoding": lambda connection: connection.set_client_encoding("LATIN1"),
    "text": lambda connection: extensions.register_type(SHOUTED, connection),
    "numbers": lambda connection: extensions.register_type(COARSE, connection),
    "moments": lambda connection: extensions.register_type(NO_MOMENTS, connection),
    "json": lambda connection: psycopg2.extras.register_default_jsonb(connection, loads=lambda _: "JSON"),
    "binary": lambda connection: connection.binary_types.update({25: SHOUTED}),
    "notices": assigned(notices=deque(maxlen=1), notifies=None),
    "attributes": assigned(of_mine="x", pinned=False, commits=-7, cursor=lambda *_, **__: None),
    "cursors": open_cursors,
    "large object": leave_a_large_object,
    "copy": leave_a_copy,
    "reset": lambda connection: connection.reset(),
    "closed": lambda connection: connection.close(),
    "BEGIN": alone("BEGIN", "CREATE TEMPORARY TABLE begun ()"),
    "SAVEPOINT": executing("SAVEPOINT a"),
    "temporary tables": executing(
        "CREATE TEMPORARY TABLE model_versions (LIKE public.model_versions)",
        "CREATE TEMPORARY TABLE monitoring_metrics AS SELECT * FROM public.monitoring_metrics",
    ),
    "temporary operators": executing(
        "CREATE FUNCTION pg_temp.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.never)",
        "SET search_path = pg_temp, pg_catalog, public",
    ),
    "LISTEN": alone("LISTEN a", "NOTIFY a"),
    "locks": executing("SELECT pg_advisory_lock(hashtextextended('mlops_db.model churn', 0))"),
    "PREPARE": executing("PREPARE a AS SELECT 1"),
    "role": executing(f"SET ROLE {OTHER_ROLE}"),
    "user": executing(f"SET SESSION AUTHORIZATION {OTHER_ROLE}"),
    "characteristics": executing("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE"),
    "encoding": executing("SET client_encoding = latin1"),
    "time zone": executing("SET timezone = 'Asia/Tokyo'"),
    "styles": executing("SET datestyle = 'German, DMY'; SET intervalstyle = 'iso_8601'; SET bytea_output = 'escape'"),
    "digits": executing("SET extra_float_digits = -15"),
    "timeouts": executing("SET statement_timeout = '1s'; SET lock_timeout = '1s'; SET application_name = 'x'"),
    "planner": executing(
        "SET standard_conforming_strings = off; SET row_security = off; SET transform_null_equals = on"
    ),
}


# What must not depend on it


def answers(db: DatabaseManager) -> list[Any]:
    """What every call of the API answers about things of its own, with all that differs from run to run left out."""
    tag = f"m{next(numbers)}"
    models, monitoring, decisions = db.models, db.monitoring, db.decisions
    rows = [
        {"metric_type": "drift", "metric_name": f"psi {n}", "metric_value": n / 3, "metadata": {"n": n, "°": WORDS}}
        for n in range(2)
    ]
    moment = AT + timedelta(seconds=1 + int(tag[1:]))
    of_tag = [{**row, "model_name": tag} for row in rows]
    found = [
        models.register(f"{tag} a", "1", model_name=tag, f1_score=0.1 + 0.2, brier_score=None),
        models.register(f"{tag} a", "1", model_name=tag, brier_score=1e-17),
        models.register(f"{tag} b", WORDS[:20], model_name=tag),
        models.get(f"{tag} a"),
        models.production(tag),
        models.promote(f"{tag} a", gates={"auc": {"passed": True, "least": 0.1 + 0.2}}, reasoning=WORDS),
        models.promote(f"{tag} b"),
        models.production(tag),
        models.rollback(tag, yes=True, reasoning=WORDS),
        models.archive(f"{tag} b"),
        models.list(tag),
        type(monitoring.log("drift", "psi 0", 0.1 + 0.2, timestamp=AT, metadata=of_tag[0], model_name=tag)),
        type(monitoring.log_failure("drift", "psi 1", ValueError(WORDS), timestamp=moment, model_name=tag)),
        monitoring.log_many(of_tag, replace=moment),
        monitoring.log_many(of_tag, replace=moment),
        monitoring.expect("drift", "psi 1", interval=timedelta(days=1, microseconds=3), upper=0.25, model_name=tag),
        monitoring.latest(tag),
        monitoring.series(tag),
        list(monitoring.history("drift", "psi 0", model_name=tag)),
        monitoring.history_frame("drift", "psi 0", model_name=tag).to_dict(),
        decisions.record("promote", candidate=f"{tag} c", gates={"a": True}, model_name=tag, decided_at=AT),
        decisions.record("promote", candidate=f"{tag} c", gates={"a": True}, model_name=tag, decided_at=AT),
        decisions.history(tag),
        decisions.summary(tag),
        db.ping(),
        db.execute_query("SELECT %s, 1.5::float8, '{\"a\": 1.5}'::jsonb, %s, 1.5::numeric", (WORDS, AT)),
    ]
    return [comparable(answer, tag, moment) for answer in found]


CHANGING = {"id", "created_at", "promoted_at", "registered_at", "decided_at", "age", "last_decided_at"}


def comparable(answer: Any, tag: str, moment: datetime) -> Any:
    if dataclasses.is_dataclass(answer) and not isinstance(answer, type):
        named = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
        return type(answer), comparable(named, tag, moment)
    if isinstance(answer, dict):
        return {
            comparable(key, tag, moment): type(item) if key in CHANGING else comparable(item, tag, moment)
            for key, item in answer.items()
        }
    if isinstance(answer, list | tuple):
        return type(answer), [comparable(item, tag, moment) for item in answer]
    if isinstance(answer, str):
        return answer.replace(tag, "TAG")
    if isinstance(answer, datetime) and answer == moment:
        return type(answer), answer.tzinfo, "MOMENT"
    return type(answer), answer


STATE = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE name NOT LIKE 'transaction%%' ORDER BY name",
    "SELECT relname FROM pg_catalog.pg_class WHERE pg_catalog.pg_table_is_visible(oid) AND relpersistence = 't'",
    "SELECT name FROM pg_catalog.pg_prepared_statements",
    "SELECT name FROM pg_catalog.pg_cursors",
    "SELECT pg_catalog.pg_listening_channels()",
    "SELECT objid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()",
    "SELECT current_user, session_user",
)


def state_of(db: DatabaseManager) -> Any:
    with db.get_connection() as connection:
        kept = {
            name: getattr(connection, name)
            for name in ("autocommit", "isolation_level", "readonly", "deferrable", "cursor_factory", "encoding",
                         "string_types", "binary_types", "notices", "notifies", "status", "closed")
        }  # fmt: skip
        own = {name for name in vars(connection) if not name.startswith("_")}
        with connection.cursor(cursor_factory=extensions.cursor) as cursor:
            answered = []
            for statement in STATE:
                cursor.execute(statement.replace("%%", "%"))
                answered.append(cursor.fetchall())
        return {name: list(value) if isinstance(value, dict) else value for name, value in kept.items()}, own, answered


def change(db: DatabaseManager, lend: Callable[[DatabaseManager], Any], *changes: str) -> None:
    """Do what some changes say in one block; one may stand in the way of the next, or of the block's end."""
    with suppress(psycopg2.Error, SQLAlchemyError, StatementFailedError), lend(db) as connection:
        for name in changes:
            with suppress(psycopg2.Error, AttributeError, TypeError):
                CHANGES[name](connection)


@pytest.fixture
def other_role(head: Database) -> Iterator[None]:
    head.query(f"DROP ROLE IF EXISTS {OTHER_ROLE}")
    head.query(f"CREATE ROLE {OTHER_ROLE}")
    yield
    # A session that ends drops its temporary tables. DROP OWNED must not meet them at that moment.
    wait_until(lambda: not head.query(OTHER_SESSIONS), "the sessions of the pool to end")
    head.query(f"DROP OWNED BY {OTHER_ROLE}")
    head.query(f"DROP ROLE {OTHER_ROLE}")


@pytest.mark.usefixtures("other_role")
@pytest.mark.parametrize("lend", LENDERS, ids=lambda lend: lend.__name__)
def test_every_change_of_a_connection_is_undone(head: Database, lend: Callable[[DatabaseManager], Any]) -> None:
    with DatabaseManager(replace(head.settings, pool_size=1, pool_overflow=0)) as db:
        untouched = state_of(db)
        for name in CHANGES:
            before = db.execute_query("SELECT pg_backend_pid()")
            change(db, lend, name)
            assert state_of(db) == untouched, name
            kept = db.execute_query("SELECT pg_backend_pid()") == before
            assert kept is not (name == "closed" or (name == "BEGIN" and lend in (of_engine, of_raw_engine))), name


@pytest.mark.usefixtures("other_role")
def test_what_the_session_began_with_comes_back(head: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "German, DMY")
    monkeypatch.setenv("PGOPTIONS", f"-c role={OTHER_ROLE} -c statement_timeout=7s")
    head.query(f"ALTER DATABASE {head.settings.database} SET lock_timeout = '6s'")
    head.query(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {OTHER_ROLE}")
    try:
        with DatabaseManager(replace(head.settings, pool_size=1, pool_overflow=0)) as db:
            untouched = state_of(db)
            assert untouched[-1][-1] == [(OTHER_ROLE, head.settings.user)]
            for name in ("time zone", "styles", "timeouts", "role", "user", "reset"):
                before = db.execute_query("SELECT pg_backend_pid()")
                change(db, DatabaseManager.get_connection, name)
                assert state_of(db) == untouched, name
                assert db.execute_query("SELECT pg_backend_pid()") == before
            with db.get_connection() as connection:
                executing("RESET ROLE")(connection)
            assert state_of(db) == untouched
    finally:
        head.query(f"DROP OWNED BY {OTHER_ROLE}")


@pytest.mark.parametrize("go_on", ["INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('a', '1')", "!"])
def test_a_statement_after_the_end_of_a_block_is_in_nobody_s_transaction(head: Database, go_on: str) -> None:
    def break_off() -> None:
        with db.cursor() as lent:
            lent.execute("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('b', '1')")
            raise LookupError

    with DatabaseManager(replace(head.settings, pool_size=1, pool_overflow=0)) as db:
        with db.get_connection() as kept:
            cursor = kept.cursor()
        with suppress(psycopg2.Error):
            cursor.execute(go_on)
        assert db.execute_query("SELECT count(*) FROM model_versions") == [(0,)]
        with db.get_connection() as kept:
            pass
        kept.autocommit = True
        with pytest.raises(LookupError):
            break_off()
        assert head.query("SELECT 1 FROM model_versions") == []


def test_no_call_depends_on_how_the_server_writes_values(head: Database, db: DatabaseManager) -> None:
    before = answers(db)
    for name, value in {"extra_float_digits": "-15", "IntervalStyle": "sql_standard", "DateStyle": "SQL, DMY"}.items():
        head.query(f"ALTER DATABASE {head.settings.database} SET {name} = {value}")
    with DatabaseManager(replace(head.settings, parameters={"client_encoding": "LATIN1"})) as other:
        assert answers(other) == before
        assert other.execute_query("SELECT 0.1::float8 + 0.2::float8, interval '1 day 3 us', 'ε'") == [
            (0.1 + 0.2, timedelta(days=1, microseconds=3), "ε")
        ]


def test_a_transaction_in_two_phases_is_nobody_else_s(db: DatabaseManager) -> None:
    def begin(connection: Any) -> None:
        connection.tpc_begin(connection.xid(1, "a", "b"))
        connection.cursor().execute("CREATE TABLE in_two_phases ()")

    for lend in (DatabaseManager.get_connection, of_sqlalchemy, of_raw_engine):
        with suppress(psycopg2.ProgrammingError, SQLAlchemyError), lend(db) as connection:
            begin(connection)
        assert connection.closed
        assert db.execute_query("SELECT to_regclass('in_two_phases')") == [(None,)]


@pytest.mark.slow
def test_a_prepared_transaction_outlives_its_block() -> None:
    with throwaway_cluster(embedded_programs(), max_prepared_transactions="2") as folder:
        with connect_superuser(folder) as admin:
            admin.execute("CREATE DATABASE mlops")
        at = settings_of(folder, "mlops")
        upgrade(at)
        with DatabaseManager(at) as db:
            with pytest.raises(psycopg2.ProgrammingError), db.get_connection() as connection:
                prepare(connection)
            assert connection.closed
            assert db.execute_query("SELECT count(*) FROM pg_prepared_xacts") == [(1,)]
            with db.get_connection() as connection:
                connection.tpc_commit(connection.tpc_recover()[0])
            assert db.execute_query("SELECT count(*) FROM model_versions") == [(1,)]


def prepare(connection: Any) -> None:
    connection.tpc_begin(connection.xid(1, "a", "b"))
    connection.cursor().execute("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('a', '1')")
    connection.tpc_prepare()


def changed_by_threads(db: DatabaseManager, blocks: list[list[tuple[Any, list[str]]]]) -> None:
    """In several threads, each making its changes in blocks of its own, all calls answer as if nothing had been."""

    def work(own: list[tuple[Any, list[str]]]) -> list[Any]:
        for lend, changes in own:
            change(db, lend, *changes)
        return answers(db)

    with ThreadPoolExecutor(len(blocks)) as threads:
        for found in threads.map(work, blocks):
            assert found == EXPECTED[0]


EXPECTED: list[Any] = []
BLOCKS = st.lists(
    st.lists(
        st.tuples(st.sampled_from(LENDERS), st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=3)),
        max_size=4,
    ),
    min_size=3,
    max_size=3,
)


@pytest.fixture
def expected(db: DatabaseManager) -> None:
    EXPECTED[:] = [answers(db)]


@pytest.mark.usefixtures("other_role", "expected")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BLOCKS)
def test_no_call_depends_on_what_others_did(db: DatabaseManager, blocks: list[list[tuple[Any, list[str]]]]) -> None:
    changed_by_threads(db, blocks)


@pytest.mark.slow
@pytest.mark.usefixtures("other_role", "expected")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BLOCKS)
def test_no_call_depends_on_what_many_others_did(
    db: DatabaseManager, blocks: list[list[tuple[Any, list[str]]]]
) -> None:
    changed_by_threads(db, blocks)


# What a library registers for the whole process


class Written:
    """An adapter that writes whatever it gets as the same text."""

    def __init__(self, value: object) -> None:
        self.value = value

    def getquoted(self) -> bytes:
        return b"'7'"


@pytest.fixture
def registries() -> Iterator[None]:
    """psycopg2's registries of the process, set back at the end."""
    kept = [(registry, dict(registry)) for registry in (extensions.string_types, extensions.adapters)]  # type: ignore[attr-defined]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)


@pytest.mark.usefixtures("registries")
def test_what_is_registered_for_the_process_is_for_callers_statements_only(head: Database, db: DatabaseManager) -> None:
    before = answers(db)
    for caster in (SHOUTED, COARSE, NO_MOMENTS):
        extensions.register_type(caster)
    for register in (psycopg2.extras.register_default_json, psycopg2.extras.register_default_jsonb):
        register(globally=True, loads=lambda _: "JSON")
    with DatabaseManager(head.settings) as opened_later:
        assert opened_later.execute_query("SELECT 'a', 1.5::float8, '{}'::jsonb") == [("A", -1.0, "JSON")]
        for kind in (str, float, int, bool, datetime, timedelta, list, dict, type(None), object):
            extensions.register_adapter(kind, Written)
        assert opened_later.execute_query("SELECT %s, %s", (1, "b")) == [("7", "7")]
        for manager in (db, opened_later):
            manager.wait_until_ready(0)
            assert answers(manager)[:-1] == before[:-1]
        with closing(connect(head.settings)) as of_a_command:
            assert of_a_command.info.parameter_status("TimeZone") == "UTC"
