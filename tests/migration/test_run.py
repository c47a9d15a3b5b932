"""What happens when Alembic runs migrations/env.py."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import RefusedError, StatementFailedError, UnmanagedDatabaseError
from mlops_db.migration import history
from mlops_db.migration.commands import alembic_config
from mlops_db.project import TABLES
from mlops_db.revisions.graph import revisions
from mlops_db.server.connection import connect
from support.database import ROOT, Database, clean_environment, run_command
from support.projects import Checkout, sql

pytestmark = pytest.mark.libraries

HEAD = revisions()[-1].id
# The last revision before one that builds an index concurrently, which no transaction of a caller's can.
BEFORE_CONCURRENTLY = "0010"


def revision_of(database: Database) -> list[tuple[str]]:
    """The recorded revisions; none if there is no alembic_version either."""
    if database.value("SELECT to_regclass('public.alembic_version')") is None:
        return []
    return database.query("SELECT version_num FROM alembic_version")


def relations(database: Database) -> list[tuple[str]]:
    return database.query(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace >= 16384 OR relnamespace = 'public'::regnamespace"
    )


def offline(*arguments: str) -> str:
    """The SQL of `alembic ... --sql`, run where no server can be reached."""
    done = run_command("alembic", *arguments, "--sql", environment=clean_environment(POSTGRES_HOST="nowhere.invalid"))
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def connection_of_a_caller(database: Database) -> Iterator[Connection]:
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(database.settings), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def with_connection(database: Database, connection: Connection) -> Config:
    config = alembic_config(database.settings)
    config.attributes["connection"] = connection
    return config


def test_env_py_stays_under_ten_lines() -> None:
    assert len((ROOT / "migrations" / "env.py").read_text(encoding="utf-8").splitlines()) < 10


# A connection of the caller's


def test_what_ran_in_a_caller_s_transaction_is_gone_when_the_caller_rolls_back(empty: Database) -> None:
    with connection_of_a_caller(empty) as connection:
        transaction = connection.begin()
        command.upgrade(with_connection(empty, connection), BEFORE_CONCURRENTLY)
        assert transaction.is_active, "the transaction is the caller's to end"
        transaction.rollback()

    assert relations(empty) == []


def test_what_ran_in_a_caller_s_transaction_is_there_when_the_caller_commits(empty: Database, head: Database) -> None:
    with connection_of_a_caller(empty) as connection, connection.begin():
        command.upgrade(with_connection(empty, connection), BEFORE_CONCURRENTLY)
        assert relations(empty) == [], "nothing may be visible before the caller commits"

    command.downgrade(alembic_config(head.settings), BEFORE_CONCURRENTLY)
    assert empty.dump() == head.dump()
    assert revision_of(empty) == [(BEFORE_CONCURRENTLY,)]


def test_an_index_that_is_built_concurrently_is_refused_in_a_caller_s_transaction(empty: Database) -> None:
    with connection_of_a_caller(empty) as connection:
        transaction = connection.begin()
        with pytest.raises(CommandError, match="model_versions_production_key is created concurrently") as refused:
            command.upgrade(with_connection(empty, connection), "head")
        transaction.rollback()

    assert isinstance(refused.value.__cause__, RefusedError)
    assert relations(empty) == []


def test_on_a_caller_s_idle_connection_the_run_commits_by_itself_and_leaves_it_open(empty: Database) -> None:
    with connection_of_a_caller(empty) as connection:
        config = with_connection(empty, connection)
        command.upgrade(config, "head")
        assert revision_of(empty) == [(HEAD,)]
        command.downgrade(config, "base")
        assert revision_of(empty) == []

        assert not connection.closed
        assert not connection.in_transaction()


def test_a_command_that_only_looks_leaves_no_transaction_open_on_a_caller_s_idle_connection(empty: Database) -> None:
    # The next upgrade would take it for the caller's, and would not commit.
    with connection_of_a_caller(empty) as connection:
        config = with_connection(empty, connection)
        command.current(config)
        assert not connection.in_transaction()
        command.upgrade(config, "head")

    assert revision_of(empty) == [(HEAD,)]


def test_a_refused_command_leaves_no_transaction_open_on_a_caller_s_idle_connection(empty: Database) -> None:
    empty.query("CREATE TABLE model_versions (id int)")
    with connection_of_a_caller(empty) as connection:
        with pytest.raises(CommandError, match="made by hand"):
            command.upgrade(with_connection(empty, connection), "head")

        assert not connection.in_transaction()


def test_the_caller_s_connection_decides_the_database_not_the_settings(empty: Database, head: Database) -> None:
    config = alembic_config(head.settings)
    with connection_of_a_caller(empty) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    assert revision_of(empty) == [("0001",)]
    assert revision_of(head) == [(HEAD,)]


def test_a_connection_of_another_driver_s_is_refused(empty: Database) -> None:
    settings = empty.settings
    url = URL.create(
        "postgresql+psycopg", settings.user, host=settings.host, port=settings.port, database=settings.database
    )
    with (
        create_engine(url, poolclass=NullPool).connect() as connection,
        pytest.raises(CommandError, match="a connection of psycopg2, and was given one of psycopg"),
    ):
        command.upgrade(with_connection(empty, connection), "head")

    assert relations(empty) == []


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_revision_gets_no_second_connection(head: Database, tmp_path: Path, environment: str) -> None:
    """What it does there would stay, whatever becomes of the revision."""
    checkout = Checkout(tmp_path)
    checkout.add(
        """
        with op.get_bind().engine.begin() as second:
            second.execute(sa.text("DROP VIEW v_model_timeline"))
        """
    )

    with pytest.raises(CommandError, match="asks for a second connection"):
        command.upgrade(checkout.config(replace(head.settings, environment=environment)), "head")

    assert head.value("SELECT to_regclass('v_model_timeline')") is not None


# --sql


def test_sql_of_an_upgrade_needs_no_server_and_makes_what_the_online_run_makes(empty: Database, head: Database) -> None:
    empty.psql(offline("upgrade", "head"))

    assert empty.dump() == head.dump()
    assert revision_of(empty) == [(HEAD,)]


def test_sql_of_a_downgrade_needs_no_server_and_undoes_everything(empty: Database, head: Database) -> None:
    head.psql(offline("downgrade", f"{HEAD}:base"))

    assert revision_of(head) == []
    empty.psql(history.CREATE)
    assert head.dump("--exclude-table=alembic_version") == empty.dump()


def test_sql_of_a_part_continues_where_the_database_stands(empty: Database, head: Database) -> None:
    command.upgrade(alembic_config(empty.settings), "0002")
    config = alembic_config(empty.settings)
    config.output_buffer = io.StringIO()

    command.upgrade(config, "0002:head", sql=True)
    empty.psql(config.output_buffer.getvalue())

    assert empty.dump() == head.dump()
    assert revision_of(empty) == [(HEAD,)]


def test_sql_that_fails_half_way_leaves_whole_revisions_behind(empty: Database) -> None:
    config = alembic_config(empty.settings)
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    empty.query("CREATE VIEW v_model_timeline AS SELECT 1")

    with pytest.raises(AssertionError, match="v_model_timeline"):
        empty.psql(config.output_buffer.getvalue())

    assert revision_of(empty) == [("0003",)]
    assert empty.value("SELECT to_regclass('v_decision_history')") is None


# search_path


@pytest.mark.parametrize("how", ["online", "sql"])
def test_a_schema_named_like_the_role_does_not_catch_the_tables(empty: Database, how: str) -> None:
    empty.query(f'CREATE SCHEMA "{empty.settings.user}"')
    config = alembic_config(empty.settings)

    if how == "online":
        command.upgrade(config, "head")
    else:
        config.output_buffer = io.StringIO()
        command.upgrade(config, "head", sql=True)
        empty.psql(config.output_buffer.getvalue())

    assert empty.query(
        "SELECT DISTINCT relnamespace::regnamespace::text FROM pg_class WHERE relname = ANY(%s)",
        [[*TABLES, "alembic_version"]],
    ) == [("public",)]


# Commands that only look


def test_commands_that_only_look_leave_no_alembic_version_behind(empty: Database) -> None:
    config = alembic_config(empty.settings)

    command.current(config)
    command.history(config, indicate_current=True)
    with pytest.raises(CommandError, match="upgrade head"):
        command.check(config)

    assert relations(empty) == []


def test_commands_that_only_look_run_where_nothing_may_be_written(empty: Database) -> None:
    read_only = {"options": "-c default_transaction_read_only=on"}
    config = alembic_config(replace(empty.settings, parameters=read_only))

    command.current(config)
    command.history(config, indicate_current=True)
    with pytest.raises(CommandError, match="read-only"):
        command.upgrade(config, "head")


def test_commands_that_only_read_show_the_revision_of_the_database(empty: Database) -> None:
    config = alembic_config(empty.settings)
    command.upgrade(config, "0002")
    config.stdout = io.StringIO()

    command.current(config)
    assert config.stdout.getvalue().split() == ["0002"]
    command.history(config, indicate_current=True)
    assert "0001 -> 0002 (current)" in config.stdout.getvalue()


# A hand-made database


def test_a_hand_made_database_is_refused_until_it_is_stamped(empty: Database, head: Database) -> None:
    by_hand = alembic_config(empty.settings)
    command.upgrade(by_hand, "0003")
    empty.query("DROP TABLE alembic_version")
    before = empty.dump()

    with pytest.raises(CommandError, match="made by hand") as refused:
        command.upgrade(by_hand, "head")
    assert isinstance(refused.value.__cause__, UnmanagedDatabaseError)
    assert empty.dump() == before

    command.stamp(by_hand, "0003")
    command.upgrade(by_hand, "head")
    assert empty.dump() == head.dump()


# A transaction for each revision


@pytest.fixture
def one_bad_revision(empty: Database, tmp_path: Path) -> Config:
    """This project's revisions with one more that fails half-way."""
    checkout = Checkout(tmp_path)
    checkout.add(sql("CREATE TABLE half_done (id int)", "SELECT 1/0"), sql("DROP TABLE half_done"))
    return checkout.config(empty.settings)


def test_a_revision_that_fails_leaves_the_ones_before_it_applied(
    empty: Database, head: Database, one_bad_revision: Config
) -> None:
    with pytest.raises(CommandError, match="division by zero") as failed:
        command.upgrade(one_bad_revision, "head")

    assert isinstance(failed.value.__cause__, StatementFailedError)
    assert revision_of(empty) == [(HEAD,)]
    assert empty.dump() == head.dump(), "the failed revision left something behind"


def test_a_downgrade_that_fails_leaves_the_ones_before_it_undone(empty: Database, one_bad_revision: Config) -> None:
    command.upgrade(one_bad_revision, HEAD)
    command.stamp(one_bad_revision, "heads")
    empty.query("CREATE TABLE half_done (id int); DROP FUNCTION mlops_internal.late_sequences()")

    with pytest.raises(CommandError, match="late_sequences"):
        command.downgrade(one_bad_revision, "base")

    assert revision_of(empty) == [("0020",)]
    assert empty.query("SELECT to_regclass('half_done'), to_regnamespace('reporting')") == [(None, None)]
    assert empty.query("SELECT to_regproc('mlops_internal.metric_partitions') IS NOT NULL") == [(True,)]
