"""Batches that are stopped anywhere, and those that psql runs."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.batches import GO_ON, HOLD, batches, changes, half_done, make_table, positions, wait_until_held
from support.database import Database, clean_environment, client, revision_of
from support.process import assert_run_failed
from support.projects import Checkout
from support.sessions import PATIENCE_S, another_session, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

SOAK_RUNS = int(os.environ.get("MLOPS_DB_SOAK_RUNS", "100"))
# Each batch takes at least 10 ms, so that there is something to stop.
SLOW = "UPDATE public.t SET n = n + 1 FROM (SELECT pg_sleep(0.01)) AS slow WHERE id > :after AND id <= :upto"
ROWS = 8_000


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def end_backends(database: Database) -> None:
    """End the backends of runs and of psql, and wait until they are gone."""
    others = """
        SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name ~ '^(mlops-db|psql)'
    """
    database.query(f"SELECT pg_terminate_backend(pid) FROM ({others}) AS others")
    wait_until(lambda: not database.query(others), "the end of the backends")


def psql(database: Database, script: Path, *, stops: bool = True) -> subprocess.Popen[str]:
    """Start psql on a script."""
    settings = database.settings
    return subprocess.Popen(
        [
            *(client("psql"), "-X", "-q", "-v", f"ON_ERROR_STOP={int(stops)}", "-f", str(script)),
            *("-h", settings.host, "-p", str(settings.port), "-U", settings.user, "-d", settings.database),
        ],
        env=clean_environment(PGPASSWORD=settings.password or ""),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def written(database: Database, checkout: Checkout) -> Path:
    """The script of the last revision, as a file."""
    done = checkout.alembic(database, "upgrade", f"{checkout.ids[-2]}:{checkout.head}", "--sql")
    assert done.returncode == 0, done.stdout + done.stderr
    file = checkout.ini.parent / "script.sql"
    file.write_text(done.stdout, encoding="utf-8")
    return file


def stop_again_and_again(
    database: Database, checkout: Checkout, way: str, runs: int, seed: int, *, longest_s: float = 1.5
) -> None:
    """Stop an upgrade at random moments so many times, then let it end."""
    moments = random.Random(seed)  # noqa: S311  (no secret)
    script = written(database, checkout)
    for _ in range(runs):
        running: subprocess.Popen[str] | None = None
        if way == "psql":
            running = psql(database, script)
            time.sleep(moments.uniform(0, longest_s))
            if moments.random() < 0.5:
                running.kill()
            end_backends(database)
            running.communicate(timeout=PATIENCE_S)
        else:
            process = checkout.start(database, "upgrade", "head")
            time.sleep(moments.uniform(0, longest_s))
            if moments.random() < 0.5:
                process.process.kill()
            end_backends(database)
            process.ended()
        assert {n for n, _ in changes(database)} <= {0, 1}
        if revision_of(database) == checkout.head:
            break
    if way == "psql":
        database.psql(script.read_text(encoding="utf-8"), stops=False)
    else:
        done = checkout.alembic(database, "upgrade", "head")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("way", ["alembic", "psql"])
@pytest.mark.parametrize("runs", [6, pytest.param(SOAK_RUNS, marks=pytest.mark.soak)])
def test_rows_are_changed_once_whenever_it_is_stopped(head: Database, checkout: Checkout, way: str, runs: int) -> None:
    make_table(head, ROWS)
    checkout.add(batches(SLOW, target="20ms"))
    stop_again_and_again(head, checkout, way, runs, seed=runs)
    assert changes(head) == [(1, ROWS)]
    assert revision_of(head) == checkout.head
    assert positions(head) == []


# psql


@pytest.fixture
def held(head: Database, checkout: Checkout) -> Path:
    """A script whose batches are held up."""
    make_table(head)
    head.query(HOLD)
    checkout.add(batches())
    return written(head, checkout)


def test_a_script_that_was_killed_goes_on_where_it_was(head: Database, checkout: Checkout, held: Path) -> None:
    with psql(head, held) as process:
        wait_until_held(head)
        process.kill()
    end_backends(head)
    done = half_done(head, checkout.head)
    head.query(GO_ON)
    with psql(head, held) as process:
        errors = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 0, errors
    assert f"goes on after id {done}, {done} rows are changed" in errors
    assert changes(head) == [(1, 5000)]
    assert revision_of(head) == checkout.head


@pytest.mark.parametrize("stops", [True, False])
def test_a_script_that_runs_once_more_changes_nothing(
    head: Database, checkout: Checkout, held: Path, *, stops: bool
) -> None:
    head.query(GO_ON)
    for _ in range(2):
        with psql(head, held, stops=stops) as process:
            errors = process.communicate(timeout=PATIENCE_S)[1]
    assert f"this database is at revision {checkout.head}" in errors
    assert stops or "the transaction before it failed; no row was changed" in errors
    assert changes(head) == [(1, 5000)]


def test_a_script_retries_a_batch_that_gets_no_lock(head: Database, checkout: Checkout, held: Path) -> None:
    with psql(head, held) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "next try in" in line)
        assert "canceling statement due to lock timeout" in line
        half_done(head, checkout.head)
        head.query(GO_ON)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert changes(head) == [(1, 5000)]


def test_a_script_whose_batches_fail_does_not_record_the_revision(
    head: Database, checkout: Checkout, held: Path
) -> None:
    head.query(GO_ON)
    head.query("ALTER TABLE t ADD CHECK (n = 0 OR id < 1500)")
    errors = head.psql(held.read_text(encoding="utf-8"), stops=False)
    assert "violates check constraint" in errors
    assert f"run_in_batches of revision {checkout.head} (upgrade) is not finished" in errors
    half_done(head, checkout.head)
    assert revision_of(head) == checkout.ids[-2]


def test_a_script_in_one_transaction_changes_nothing(head: Database, held: Path) -> None:
    head.query(GO_ON)
    script = held.read_text(encoding="utf-8")
    head.psql(f"BEGIN;\n{script.replace('COMMIT;', '').replace('BEGIN;', '')}\nROLLBACK;", stops=False)
    assert changes(head) == [(0, 5000)]


def test_a_script_waits_for_open_transactions(head: Database, checkout: Checkout, held: Path) -> None:
    head.query(GO_ON)
    waits = """
        SELECT FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'psql'
           AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')
    """
    with another_session(head, "writes", "INSERT INTO t (id) VALUES (6000)") as session, psql(head, held) as process:
        wait_until(lambda: head.query(waits), "the script to wait")
        assert changes(head) == [(0, 5000)]
        session.commit()
        process.communicate(timeout=PATIENCE_S)
    assert changes(head) == [(1, 5001)]
    assert revision_of(head) == checkout.head


# How it ends


@pytest.mark.parametrize("way", ["SIGINT", "SIGTERM", "pg_terminate_backend"])
def test_it_ends_with_one_line_and_goes_on(head: Database, checkout: Checkout, way: str) -> None:
    make_table(head)
    head.query(HOLD)
    checkout.add(batches())
    running = checkout.start(head, "-x", "lock-timeout=20s", "upgrade", "head")
    pid = wait_until_held(head)
    if way == "pg_terminate_backend":
        head.query("SELECT pg_terminate_backend(%s)", [pid])
    else:
        assert running.process.pid is not None
        os.kill(running.process.pid, getattr(signal, way))
    done = running.ended()
    if way == "pg_terminate_backend":
        assert_run_failed(done, "terminating connection due to administrator command")
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode != 0
    wait_until(lambda: not head.query("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]), "the backend's end")
    half_done(head, checkout.head)
    head.query(GO_ON)
    assert checkout.alembic(head, "upgrade", "head").returncode == 0
    assert changes(head) == [(1, 5000)]
