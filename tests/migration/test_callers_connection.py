"""Connections that a program hands in: which work, how others are refused, and that they come back as they were."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import psycopg2
import psycopg2.extensions
import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from mlops_db.errors import ConnectionFailedError, RefusedError, StatementFailedError
from mlops_db.migration.commands import alembic_config
from mlops_db.migration.session import run_pins
from mlops_db.settings import Settings
from support.database import Database
from support.projects import Checkout, sql

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

# Every setting that a run pins, and some value of a program's own.
THEIRS = {
    "search_path": "pg_catalog",
    "row_security": "on",
    "timezone": "Asia/Kolkata",
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "lock_timeout": "7s",
    "statement_timeout": "3min",
    "idle_in_transaction_session_timeout": "4min",
    "default_transaction_isolation": "serializable",
}


def url(settings: Settings, driver: str = "psycopg2") -> URL:
    return URL.create(
        f"postgresql+{driver}",
        settings.user,
        settings.password,
        database=settings.database,
        query={"host": settings.host, "port": str(settings.port)},
    )


@contextmanager
def engine(database: Database, **options: Any) -> Iterator[Engine]:
    created = create_engine(url(database.settings), **options)
    try:
        yield created
    finally:
        created.dispose()


def config_with(database: Database, connection: object, checkout: Checkout | None = None) -> Config:
    config = alembic_config(database.settings) if checkout is None else checkout.config(database.settings)
    config.attributes["connection"] = connection
    return config


def refused(database: Database, connection: object, *parts: str) -> None:
    """One line and a hint, and nothing was changed."""
    with pytest.raises(CommandError) as caught:
        command.upgrade(config_with(database, connection), "head")
    assert isinstance(caught.value.__cause__, RefusedError | ConnectionFailedError)
    line, hint = str(caught.value).split("\n")
    assert hint.startswith("Hint: ")
    for part in parts:
        assert part in line
    assert database.value("SELECT to_regnamespace('mlops_internal')") is None


def session_of(connection: Connection) -> dict[str, str]:
    names = [*run_pins(Settings()), *THEIRS]
    return {
        name: connection.exec_driver_sql(f"SELECT pg_catalog.current_setting('{name}', true)").scalar() or ""
        for name in names
    }


def choose(connection: Connection, *, local: bool = False) -> None:
    for name, value in THEIRS.items():
        connection.exec_driver_sql(f"SET {'LOCAL ' if local else ''}{name} = '{value}'")


def revision_of(database: Database) -> str | None:
    if database.value("SELECT to_regclass('public.alembic_version')") is None:
        return None
    found = database.query("SELECT version_num FROM public.alembic_version")
    return found[0][0] if found else None


# What works


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"poolclass": NullPool},
        {"poolclass": StaticPool},
        {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0},
        {"isolation_level": "AUTOCOMMIT"},
        {"isolation_level": "SERIALIZABLE"},
        {"execution_options": {"schema_translate_map": {None: "elsewhere", "public": "elsewhere"}}},
        {"execution_options": {"stream_results": True, "yield_per": 2}},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_an_engine_works_and_its_pool_has_the_connection_back(
    empty: Database, head: Database, options: dict[str, Any]
) -> None:
    with engine(empty, **options) as created:
        config = config_with(empty, created)
        command.upgrade(config, "head")
        command.current(config)
        command.check(config)
        assert empty.dump() == head.dump()
        command.downgrade(config, "base")
        assert revision_of(empty) is None
        if isinstance(created.pool, QueuePool):
            assert created.pool.checkedout() == 0


@pytest.fixture(params=["done", "failed"])
def run(empty: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Upgrade with what is handed in, to where no index is built concurrently; or fail on the way."""
    checkout = Checkout(tmp_path)
    if request.param == "failed":
        (tmp_path / "migrations" / "versions" / "0002_monitoring_metrics.py").write_text(
            '"""Fails."""\nfrom alembic import op\nrevision, down_revision = "0002", "0001"\n'
            'def upgrade():\n    op.execute("SELECT 1/0")\ndef downgrade():\n    pass\n',
            encoding="utf-8",
        )

    def upgrade(connection: object) -> None:
        config = config_with(empty, connection, checkout)
        if request.param == "failed":
            with pytest.raises(CommandError, match="division by zero"):
                command.upgrade(config, "0010")
            raise Failed
        command.upgrade(config, "0010")

    return upgrade


class Failed(Exception):  # noqa: N818  (what the caller of a failed run sees)
    """The run failed as it was to."""


@pytest.mark.parametrize("how", ["engine", "connection"])
def test_an_idle_session_comes_back_as_it_was(empty: Database, run: Callable[[object], None], how: str) -> None:
    with engine(empty, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_reset_on_return=None) as created:
        with created.connect() as connection:
            choose(connection)
            before = session_of(connection)
            connection.commit()
            if how == "connection":
                with suppress(Failed):
                    run(connection)
                assert not connection.in_transaction()
        if how == "engine":
            with suppress(Failed):
                run(created)
        with created.connect() as connection:
            assert session_of(connection) == before
    assert revision_of(empty) in ("0001", "0010")


def test_a_callers_transaction_has_its_settings_and_so_has_what_comes_after_it(
    empty: Database, run: Callable[[object], None]
) -> None:
    with engine(empty) as created, created.connect() as connection:
        choose(connection)
        before = session_of(connection)
        connection.commit()
        with suppress(Failed), connection.begin():
            run(connection)
            assert session_of(connection) == before
            assert revision_of(empty) is None, "nothing is to be seen before the caller commits"
        assert session_of(connection) == before
    assert revision_of(empty) in (None, "0010")


def test_what_a_caller_set_for_its_transaction_ends_with_it(empty: Database, run: Callable[[object], None]) -> None:
    with engine(empty) as created, created.connect() as connection:
        untouched = session_of(connection)
        connection.commit()
        with suppress(Failed), connection.begin():
            choose(connection, local=True)
            chosen = session_of(connection)
            run(connection)
            assert session_of(connection) == chosen
        after = session_of(connection)
    for session in (untouched, after):
        del session["search_path"]  # which revisions set for the session; there is no telling what it was before LOCAL
    assert after == untouched


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "REPEATABLE READ"])
def test_a_connection_s_isolation_comes_back_too(empty: Database, tmp_path: Path, level: str) -> None:
    checkout = Checkout(tmp_path)
    with engine(empty) as created, created.connect().execution_options(isolation_level=level) as connection:
        driver: Any = connection.connection.dbapi_connection
        before = driver.autocommit, driver.isolation_level
        command.upgrade(config_with(empty, connection, checkout), "head")
        assert (driver.autocommit, driver.isolation_level) == before
        assert connection.get_execution_options()["isolation_level"] == level

        checkout.add(sql("CREATE TABLE half (id int)", "SELECT 1/0"))
        with pytest.raises(CommandError, match="division by zero"):
            command.upgrade(config_with(empty, connection, checkout), "head")
        assert (driver.autocommit, driver.isolation_level) == before
    assert empty.value("SELECT to_regclass('half')") is None, "each revision is a transaction, also under AUTOCOMMIT"


def test_what_a_statement_may_take_is_the_run_s(empty: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    seen = "SELECT current_setting('lock_timeout') AS lock, current_setting('statement_timeout') AS statement"
    checkout.add(sql(f"CREATE TABLE seen AS {seen}", f"INSERT INTO seen {seen}"))
    checkout.add(
        'op.create_index_concurrently("seen_idx", "seen", ["lock"])\n' + sql(f"INSERT INTO seen {seen}", "SELECT 1")
    )
    settings = replace(empty.settings, lock_timeout=700, statement_timeout=7000)
    with engine(empty, connect_args={"options": "-c lock_timeout=5s"}) as created:
        config = checkout.config(settings)
        config.attributes["connection"] = created
        command.upgrade(config, "head")
    assert set(empty.query("TABLE seen")) == {("700ms", "7s")}


def test_messages_name_the_database_that_the_connection_leads_to(empty: Database, head: Database) -> None:
    empty.query("CREATE TABLE model_versions (id int)")
    with engine(empty) as created:
        config = config_with(head, created)
        with pytest.raises(CommandError, match=f"/{empty.settings.database}"):
            command.upgrade(config, "head")


def test_none_is_no_connection(empty: Database) -> None:
    command.upgrade(config_with(empty, None), "0001")
    assert revision_of(empty) == "0001"


# What does not


class Custom:
    """Somebody's own."""


@pytest.mark.parametrize(
    "connection",
    [
        "postgresql://airflow:tr0ub4dor@somewhere/mlops",
        URL.create("postgresql"),
        3,
        Custom(),
        object,
        SimpleNamespace(),
    ],
    ids=lambda connection: type(connection).__name__,
)
def test_another_object_is_named_by_its_class(empty: Database, connection: object) -> None:
    refused(empty, connection, "SQLAlchemy's Connection or Engine on psycopg2", type(connection).__qualname__)
    with pytest.raises(CommandError) as caught:
        command.upgrade(config_with(empty, connection), "head")
    assert "tr0ub4dor" not in str(caught.value)


def test_a_driver_s_own_connection_is_refused(empty: Database) -> None:
    settings = empty.settings
    where = {"host": settings.host, "port": settings.port, "user": settings.user, "dbname": settings.database}
    with closing(psycopg2.connect(**where)) as connection:
        refused(empty, connection, "psycopg2.extensions.connection")
    with psycopg.connect(**where) as other:
        refused(empty, other, "psycopg.Connection")
    with closing(sqlite3.connect(":memory:")) as third:
        refused(empty, third, "sqlite3.Connection")


def test_a_session_is_refused_with_the_way_out(empty: Database) -> None:
    with engine(empty) as created, Session(created) as session:
        with pytest.raises(CommandError, match=r"connection\(\)"):
            command.upgrade(config_with(empty, session), "head")
        command.upgrade(config_with(empty, session.connection()), "0001")
        session.rollback()
    assert revision_of(empty) is None


@pytest.mark.parametrize("kind", ["engine", "connection"])
@pytest.mark.parametrize("driver", ["psycopg", "sqlite"])
def test_another_driver_s_is_refused(empty: Database, driver: str, kind: str) -> None:
    created = create_engine("sqlite://" if driver == "sqlite" else url(empty.settings, driver))
    name = "pysqlite" if driver == "sqlite" else driver
    if kind == "engine":
        refused(empty, created, f"a connection of psycopg2, and was given one of {name}")
    else:
        with created.connect() as connection:
            refused(empty, connection, f"a connection of psycopg2, and was given one of {name}")
    created.dispose()


def test_a_connection_in_no_state_to_be_used_is_refused(empty: Database) -> None:
    with engine(empty) as created:
        connection = created.connect()
        connection.close()
        refused(empty, connection, "is closed")

        with created.connect() as connection:
            connection.invalidate()
            refused(empty, connection, "broke")

        with created.connect() as connection:
            with connection.begin(), pytest.raises(Exception, match="division"):
                connection.execute(text("SELECT 1/0"))
            connection.rollback()
            transaction = connection.begin()
            with pytest.raises(Exception, match="division"):
                connection.execute(text("SELECT 1/0"))
            refused(empty, connection, "has failed")
            transaction.rollback()
            command.upgrade(config_with(empty, connection), "0001")
            command.downgrade(config_with(empty, connection), "base")
            empty.query("DROP SCHEMA mlops_internal CASCADE")

        with created.connect() as connection:
            connection.connection.cursor().execute("CREATE TABLE theirs (id int)")
            refused(empty, connection, "a transaction that SQLAlchemy does not know of")
            connection.connection.rollback()
        with created.connect().execution_options(isolation_level="AUTOCOMMIT") as connection, connection.begin():
            refused(empty, connection, "AUTOCOMMIT")
    assert empty.value("SELECT to_regclass('theirs')") is None


def test_an_engine_that_does_not_connect_is_refused_in_one_line(empty: Database) -> None:
    nowhere = create_engine(url(empty.settings).set(database="nowhere"))
    refused(empty, nowhere, 'database "nowhere" does not exist')
    with (
        engine(empty, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1) as created,
        created.connect(),
    ):
        refused(empty, created, "no connection left in its pool")


def test_a_read_only_connection_may_read_and_its_writes_are_explained(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(sql("CREATE TABLE mine (id int)"))
    with engine(head) as created, created.connect().execution_options(postgresql_readonly=True) as connection:
        command.current(config_with(head, connection, checkout))
        with pytest.raises(CommandError, match="in a read-only transaction") as caught:
            command.upgrade(config_with(head, connection, checkout), "head")
        assert isinstance(caught.value.__cause__, StatementFailedError)
        assert connection.connection.dbapi_connection.readonly is True  # type: ignore[union-attr]


def test_a_connection_that_breaks_in_the_run_is_reported_and_leaves_the_pool(empty: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(sql("SELECT pg_terminate_backend(pg_backend_pid())"))
    with engine(empty, poolclass=QueuePool, pool_size=1, max_overflow=0) as created:
        connects = []
        event.listen(created, "connect", lambda *_: connects.append(1))
        with pytest.raises(CommandError, match="broke"):
            command.upgrade(config_with(empty, created, checkout), "head")
        with created.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
            assert connection.connection.dbapi_connection.info.transaction_status  # type: ignore[union-attr]
        assert len(connects) == 2
