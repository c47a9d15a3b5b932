"""Several runs at once: one does the work, the others say who does and end well."""

import subprocess
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.migration.commands import downgrade, upgrade
from mlops_db.revisions.graph import revisions
from mlops_db.server.advisory import RUN_LOCK
from mlops_db.server.connection import connect
from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database, history_of, revision_of
from support.process import assert_run_failed
from support.projects import Checkout, event, sql
from support.sessions import another_session

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

PROJECT = [revision.id for revision in revisions()]
GATE = """DO $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM test.gate WHERE open) LOOP PERFORM pg_sleep(0.02); END LOOP;
END $$"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("_round", [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 5))])
def test_of_eight_cold_starts_at_once_one_does_the_work_and_all_end_well(empty: Database, _round: int) -> None:
    processes = [
        subprocess.Popen(
            [SCRIPTS / "alembic", "upgrade", "head"],
            env=empty.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for _ in range(8)
    ]
    lines = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * 8, lines
    assert history_of(empty) == [(revision, "applied") for revision in PROJECT]
    assert revision_of(empty) == PROJECT[-1]
    assert sum("nothing to do" in text for text in lines) == 7, lines


def test_of_eight_runs_at_the_same_moment_one_does_the_work_and_all_end_well(
    empty: Database, checkout: Checkout
) -> None:
    for _ in range(5):
        now = event()
        runs = [checkout.start(empty, "upgrade", "head", when=now) for _ in range(8)]
        now.set()
        done = [run.ended() for run in runs]

        assert [each.returncode for each in done] == [0] * 8, done
        assert history_of(empty) == [(revision, "applied") for revision in PROJECT]
        assert sum("nothing to do" in each.stderr for each in done) == 7, done

        assert checkout.alembic(empty, "downgrade", "base").returncode == 0
        empty.query("DROP SCHEMA mlops_internal CASCADE; DROP TABLE alembic_version")


def test_a_waiter_names_the_holder_and_ends_well_when_the_holder_has_done_the_work(
    head: Database, checkout: Checkout
) -> None:
    head.query("CREATE SCHEMA test; CREATE TABLE test.gate (open bool)")
    checkout.add(sql(GATE))
    holder = checkout.start(head, "upgrade", "head")
    pid = holder.backend(head, "%test.gate%")
    application, since = head.query(
        "SELECT application_name, to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
        " FROM pg_stat_activity WHERE pid = %s",
        [pid],
    )[0]

    waiter = checkout.start(head, "upgrade", "head")
    lines = waiter.wait_for_output("waiting for another run or command")
    head.query("INSERT INTO test.gate VALUES (true)")

    assert f"pid {pid} ({application}), connected since {since} UTC" in lines
    assert holder.ended().returncode == 0
    done = waiter.ended()
    assert done.returncode == 0, done
    assert "nothing to do" in done.stderr
    assert history_of(head, checkout.head) == [(checkout.head, "applied")]


def test_a_waiter_whose_time_is_up_names_the_holder_and_changes_nothing(head: Database, checkout: Checkout) -> None:
    checkout.add(sql("CREATE TABLE too_late (id int)"))
    before, entries = head.dump(), history_of(head)

    with another_session(head, "the other deploy", f"SELECT pg_advisory_lock({RUN_LOCK})") as other:
        holder = f"pid {other.info.backend_pid} (the other deploy), connected since "
        done = checkout.alembic(head, "-x", "lock-wait=500ms", "upgrade", "head")

    assert done.stderr.count(f"waiting for another run or command: {holder}") == 1, done.stderr
    assert_run_failed(done, "another run or command still holds the lock after 0.5 s", holder, "nothing was changed")
    assert (head.dump(), history_of(head)) == (before, entries)


def test_two_threads_migrate_two_databases_at_once(empty: Database, head: Database) -> None:
    failures: list[BaseException] = []

    def up_and_down(database: Database, start: threading.Barrier) -> None:
        try:
            start.wait()
            for _ in range(3):
                upgrade(database.settings)
                downgrade(database.settings, "base")
        except BaseException as error:  # noqa: BLE001  (told in the other thread)
            failures.append(error)

    start = threading.Barrier(2)
    threads = [threading.Thread(target=up_and_down, args=(database, start)) for database in (empty, head)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    both_ways = [(revision, "applied") for revision in [*PROJECT, *reversed(PROJECT)]]
    assert history_of(empty) == both_ways * 3
    assert history_of(head)[len(PROJECT) :] == [(revision, "applied") for revision in reversed(PROJECT)] + both_ways * 2


@pytest.mark.parametrize("body", ["pass", sql("SELECT 1/0")], ids=["done", "failed"])
def test_the_lock_is_free_after_the_run_on_a_connection_that_stays_open(
    head: Database, checkout: Checkout, body: str
) -> None:
    checkout.add(body)
    config = checkout.config(head.settings)
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(head.settings), poolclass=NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        if body == "pass":
            command.upgrade(config, "head")
        else:
            with pytest.raises(CommandError, match="division by zero"):
                command.upgrade(config, "head")

        assert head.value("SELECT pg_try_advisory_lock(%s)", [RUN_LOCK])


def test_a_run_that_lost_its_lock_rolls_its_revision_back_and_says_so(head: Database, checkout: Checkout) -> None:
    kept = checkout.add(sql("CREATE TABLE kept (id int)"))
    lost = checkout.add(sql("CREATE TABLE lost (id int)", "SELECT pg_advisory_unlock_all()"))
    checkout.add(sql("CREATE TABLE never (id int)"))

    done = checkout.alembic(head, "upgrade", "head")

    assert_run_failed(done, "the run lock was lost", "rolled back")
    assert revision_of(head) == kept
    assert head.query("SELECT to_regclass('kept')::text, to_regclass('lost'), to_regclass('never')") == [
        ("kept", None, None)
    ]
    assert history_of(head, *checkout.ids[-3:]) == [(kept, "applied"), (lost, "failed")]
