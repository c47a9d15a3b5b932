"""mlops_internal.migration_history: what runs did, as an operator finds it after an accident."""

import datetime as dt
import os
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import MlopsDbError, RefusedError
from mlops_db.migration import commands
from mlops_db.migration.commands import alembic_config
from mlops_db.migration.history import Entry, read_history
from mlops_db.server.connection import connect
from support.database import ROOT, SCRIPTS, Database, revision_of
from support.projects import Checkout, sql
from support.sessions import another_session, wait_until
from support.snapshot import Progress

pytestmark = pytest.mark.libraries


def history(database: Database) -> list[Entry]:
    """The entries, oldest first."""
    return read_history(database.settings, limit=1000)[::-1]


def steps(database: Database) -> list[tuple[str, str, str]]:
    return [(entry.direction, entry.revision, entry.outcome) for entry in history(database)]


def test_every_step_is_entered_with_its_revision_and_direction(empty: Database) -> None:
    commands.upgrade(empty.settings, "0002")
    commands.downgrade(empty.settings, "0001")
    command.stamp(alembic_config(empty.settings), "0002")
    command.stamp(alembic_config(empty.settings), "base")

    assert steps(empty) == [
        ("upgrade", "0001", "applied"),
        ("upgrade", "0002", "applied"),
        ("downgrade", "0002", "applied"),
        ("stamp", "0002", "applied"),
        ("stamp", "base", "applied"),
    ]


def test_an_entry_says_who_ran_it_with_what_and_when(empty: Database) -> None:
    before = empty.value("SELECT clock_timestamp()")
    commands.upgrade(empty.settings, "0001")
    after = empty.value("SELECT clock_timestamp()")

    (entry,) = history(empty)

    assert entry.finished_at is not None
    assert before <= entry.started_at <= entry.finished_at <= after
    assert entry.started_at.utcoffset() == dt.timedelta(0)
    assert empty.query("SELECT duration FROM mlops_internal.migration_history") == [
        (entry.finished_at - entry.started_at,)
    ]
    assert entry.role == empty.settings.user
    assert f"@{os.uname().nodename} pid {os.getpid()}" in entry.client
    for tool in ("alembic", "SQLAlchemy", "mlops-db"):
        assert f"{tool} {version(tool)}".lower() in entry.tools.lower()
    assert entry.error is None


def test_a_run_with_nothing_to_do_enters_nothing(head: Database) -> None:
    before = history(head)
    commands.upgrade(head.settings)
    assert history(head) == before


def test_an_entry_is_there_while_its_step_runs_and_complete_when_it_is_done(empty: Database) -> None:
    seen = []
    progress = Progress("0003 retraining_decisions", lambda: seen.append((steps(empty), revision_of(empty))))

    commands.upgrade(empty.settings, "0003", progress=progress)

    assert seen == [
        (
            [("upgrade", "0001", "applied"), ("upgrade", "0002", "applied"), ("upgrade", "0003", "running")],
            "0002",
        )
    ]
    assert steps(empty)[-1] == ("upgrade", "0003", "applied")


def test_an_entry_is_completed_in_the_transaction_of_its_revision(empty: Database) -> None:
    commands.upgrade(empty.settings, "0002")
    assert empty.query("""
        SELECT version_num, history.xmin = alembic_version.xmin
          FROM alembic_version JOIN mlops_internal.migration_history AS history ON revision = version_num
    """) == [("0002", True)]


# Failed tries

FAILS_IN_SQL = sql("SELECT 1/0")
FAILS_IN_PYTHON = "raise RuntimeError('3 rows of model_versions have no score')"
# A deferred constraint is checked by COMMIT, when the entry has been completed in the same transaction.
FAILS_AT_COMMIT = sql(
    "CREATE TABLE extra (id int PRIMARY KEY, other int REFERENCES extra DEFERRABLE INITIALLY DEFERRED)",
    "INSERT INTO extra VALUES (1, 2)",
)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (FAILS_IN_SQL, "division by zero"),
        (FAILS_IN_PYTHON, "3 rows of model_versions have no score"),
        (FAILS_AT_COMMIT, "violates foreign key constraint"),
    ],
    ids=["in SQL", "in Python", "at COMMIT"],
)
def test_a_failed_step_is_entered_with_its_error(head: Database, tmp_path: Path, statement: str, reason: str) -> None:
    checkout = Checkout(tmp_path)
    before = checkout.head
    checkout.add(statement)

    with pytest.raises((CommandError, RuntimeError), match=reason):
        command.upgrade(checkout.config(head.settings), "head")

    assert revision_of(head) == before
    entry = history(head)[-1]
    assert (entry.direction, entry.revision, entry.outcome) == ("upgrade", checkout.head, "failed")
    assert reason in str(entry.error)
    assert entry.finished_at is not None


def test_a_step_that_got_no_lock_is_entered_try_by_try(empty: Database) -> None:
    commands.upgrade(empty.settings, "0001")
    with (
        another_session(empty, "blocker", "LOCK TABLE model_versions IN SHARE MODE"),
        pytest.raises(RefusedError, match="no lock after 1 try"),
    ):
        commands.downgrade(replace(empty.settings, lock_timeout=50, retry_for=0), "base")
    commands.downgrade(empty.settings, "base")

    assert steps(empty)[1:] == [("downgrade", "0001", "failed"), ("downgrade", "0001", "applied")]
    assert "lock timeout" in str(history(empty)[1].error)


def test_a_step_that_cannot_even_be_entered_leaves_the_entry_before_it_alone(empty: Database) -> None:
    commands.upgrade(empty.settings, "0001")
    empty.query("""
        CREATE FUNCTION mlops_internal.refuse() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RAISE EXCEPTION ''the disk is full''; END';
        CREATE TRIGGER refuse BEFORE INSERT ON mlops_internal.migration_history
            FOR EACH ROW WHEN (NEW.revision = '0003') EXECUTE FUNCTION mlops_internal.refuse();
    """)

    with pytest.raises(MlopsDbError, match="the disk is full"):
        commands.upgrade(empty.settings)

    assert revision_of(empty) == "0002"
    assert steps(empty) == [("upgrade", "0001", "applied"), ("upgrade", "0002", "applied")]


# What it survives


def test_it_outlives_a_downgrade_to_base_which_leaves_public_as_it_was(empty: Database) -> None:
    public = ("--schema=public", "--exclude-table=alembic_version")
    before = empty.dump(*public)
    commands.upgrade(empty.settings, "0004")
    commands.downgrade(empty.settings, "base")

    assert empty.dump(*public) == before
    assert empty.query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1") == [
        ("alembic_version",),
        ("alembic_version_pkc",),
    ]
    assert revision_of(empty) is None
    ids = ["0001", "0002", "0003", "0004"]
    assert steps(empty) == [
        *(("upgrade", revision, "applied") for revision in ids),
        *(("downgrade", revision, "applied") for revision in ids[::-1]),
    ]


def test_it_goes_on_after_a_downgrade_to_base(empty: Database) -> None:
    commands.upgrade(empty.settings, "0001")
    commands.downgrade(empty.settings, "base")
    commands.upgrade(empty.settings, "0001")
    assert [direction for direction, _, _ in steps(empty)] == ["upgrade", "downgrade", "upgrade"]


def test_a_run_that_was_killed_shows_as_interrupted_once_the_next_one_has_run(empty: Database) -> None:
    commands.upgrade(empty.settings, "0004")
    environment = empty.environment | {"MLOPS_LOCK_TIMEOUT": "2min", "MLOPS_STATEMENT_TIMEOUT": "3min"}
    waits = "SELECT count(*) FROM pg_locks WHERE relation = 'monitoring_metrics'::regclass AND NOT granted"
    with (
        another_session(empty, "blocker", "LOCK TABLE monitoring_metrics IN SHARE MODE"),
        subprocess.Popen(
            [SCRIPTS / "alembic", "downgrade", "base"], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL
        ) as run,
    ):
        try:
            wait_until(lambda: run.poll() is not None or empty.value(waits), "the downgrade to wait for its lock")
        finally:
            run.kill()
    before = len(history(empty))

    commands.upgrade(empty.settings, "0004")

    assert steps(empty)[before - 2 :] == [
        ("downgrade", "0003", "applied"),
        ("downgrade", "0002", "interrupted"),
        ("upgrade", "0003", "applied"),
        ("upgrade", "0004", "applied"),
    ]
    interrupted = history(empty)[before - 1]
    assert (interrupted.finished_at, interrupted.error) == (None, None)
    assert f"pid {run.pid}" in interrupted.client


def test_a_caller_who_rolls_back_leaves_no_entry(empty: Database) -> None:
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(empty.settings), poolclass=NullPool)
    with engine.connect() as connection:
        config = alembic_config(empty.settings)
        config.attributes["connection"] = connection
        with connection.begin() as transaction:
            command.upgrade(config, "0001")
            transaction.rollback()
        assert history(empty) == []
        with connection.begin():
            command.upgrade(config, "0001")

    assert steps(empty) == [("upgrade", "0001", "applied")]


def test_after_an_entry_that_had_to_be_tried_again_its_revision_has_a_transaction(
    empty: Database, tmp_path: Path
) -> None:
    checkout = Checkout(tmp_path)
    checkout.alembic(empty, "upgrade", "head")
    empty.query("""
        CREATE SEQUENCE tries;
        CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('public.tries') = 1 THEN
                RAISE lock_not_available USING MESSAGE = 'not now';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse_once BEFORE INSERT ON mlops_internal.migration_history
            FOR EACH ROW EXECUTE FUNCTION refuse_once()
    """)
    before = checkout.head
    checkout.add(sql("CREATE TABLE half ()", "SELECT 1 / 0"))

    done = checkout.alembic(empty, "upgrade", "head")

    assert "next try in" in done.stderr
    assert "division by zero" in done.stdout
    assert empty.value("SELECT to_regclass('half')") is None
    assert revision_of(empty) == before
    assert steps(empty)[-1] == ("upgrade", checkout.head, "failed")


def test_a_callers_engine_in_autocommit_stays_so(empty: Database) -> None:
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: connect(empty.settings),
        isolation_level="AUTOCOMMIT",
        pool_size=1,
        max_overflow=0,
    )
    with engine.connect() as connection:
        config = alembic_config(empty.settings)
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE public.afterwards ()")
    engine.dispose()

    assert revision_of(empty) == "0002"
    assert empty.value("SELECT to_regclass('afterwards')") is not None
