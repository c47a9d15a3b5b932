"""Daily work over two workers: reruns, months, a revision and maintenance beside a long reader, new series."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest

from mlops_db.errors import ContentionError
from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database
from support.forks import exit_code, forked
from support.metric_jobs import assert_rows_are_those_of_confirmed_calls, jobs, reruns
from support.projects import Checkout, sql
from support.sessions import another_session, wait_until

MODELS = [f"model {i}" for i in range(12)]  # on both workers


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_of_three_reruns_at_once_one_has_all_the_rows(over_two: Database, tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        with reruns(over_two, tmp_path / str(number), 3) as running:
            running.go_on(30)


def test_months_come_and_go_while_jobs_write(over_two: Database, tmp_path: Path) -> None:
    with DatabaseManager(over_two.settings) as db:
        db.monitoring.log("t", "old", 1, timestamp=datetime.now(timezone.utc) - timedelta(days=400))
    with jobs(over_two.settings, tmp_path / "jobs") as running:
        running.go_on()
        for ahead in (4, 5):
            patiently(lambda: over_two.query("CALL mlops_internal.maintain(NULL, %s::int)", (ahead,)))  # noqa: B023
            running.go_on()
        patiently(lambda: over_two.query("CALL mlops_internal.maintain('200 days')"))
        running.go_on()
        running.stop()
    assert running.refused_for_good() == []
    assert_rows_are_those_of_confirmed_calls(over_two, running.calls)
    assert over_two.query("SELECT * FROM mlops_internal.missing_series()") == []
    assert over_two.value("SELECT count(*) FROM monitoring_metrics WHERE metric_name = 'old'") == 0
    assert over_two.run("mlops-db", "check").returncode == 0


def patiently(do: Callable[[], object]) -> None:
    """Repeat what gets no lock in its short time, as `mlops-db maintain` does."""
    for _ in range(200):
        try:
            do()
        except psycopg.errors.LockNotAvailable:  # noqa: PERF203  (each try has its own)
            time.sleep(0.1)
        else:
            return
    pytest.fail("no lock in 200 tries")


@contextmanager
def long_reader(database: Database, model: str) -> Iterator[None]:
    """A transaction that has read a model's rows, and stays open."""
    with another_session(database, "reader") as session:
        session.execute("SELECT count(*) FROM monitoring_metrics WHERE model_name = %s", (model,))
        yield


@contextmanager
def meanwhile(do: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread during the block, and see it end."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            do()
        except BaseException as error:  # noqa: BLE001  (raised below)
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert errors == []


def test_others_do_not_wait_behind_a_month_that_waits_for_a_reader(over_two: Database) -> None:
    """The reader came by the coordinator, so the wait is bounded there; test_maintain.py has one on a worker."""
    info = over_two.settings
    with (
        DatabaseManager(replace(info, pool_lock_timeout=20_000)) as db,
        another_session(over_two, "maintenance") as maintenance,
    ):
        db.monitoring.log("t", "n", 1, model_name=MODELS[0])
        maintenance.commit()
        maintenance.autocommit = True
        with long_reader(over_two, MODELS[0]):
            tried: list[str] = []

            def make_month() -> None:
                for _ in range(3):
                    try:
                        maintenance.execute("CALL mlops_internal.maintain(NULL, 4)")
                    except psycopg.errors.LockNotAvailable as error:  # noqa: PERF203  (the same)
                        tried.append(str(error))

            with meanwhile(make_month):
                for _ in range(20):
                    db.monitoring.log("t", "n", 2, model_name=MODELS[0])
                    time.sleep(0.05)
            assert len(tried) == 3
        maintenance.execute("CALL mlops_internal.maintain(NULL, 4)")
    assert over_two.run("mlops-db", "check").returncode == 0


def test_others_do_not_wait_behind_a_revision_that_waits_for_a_reader(over_two: Database, tmp_path: Path) -> None:
    """The wait is on the coordinator here, too; test_migrations.py has one on a worker."""
    checkout = Checkout(tmp_path)
    checkout.add(
        sql("ALTER TABLE monitoring_metrics ADD COLUMN note text"),
        sql("ALTER TABLE monitoring_metrics DROP COLUMN note"),
    )
    with DatabaseManager(replace(over_two.settings, pool_lock_timeout=20_000)) as db:
        db.monitoring.log("t", "n", 1, model_name=MODELS[0])
        with long_reader(over_two, MODELS[0]):
            run = checkout.start(over_two, "-x", "lock-timeout=300ms", "-x", "retry-for=2s", "upgrade", "head")
            while run.process.is_alive():
                db.monitoring.log("t", "n", 2, model_name=MODELS[0])
                time.sleep(0.05)
            refused = run.ended()
        assert refused.returncode > 0, refused
        done = checkout.alembic(over_two, "upgrade", "head")
        assert done.returncode == 0, done
        db.monitoring.log("t", "n", 3, model_name=MODELS[0])


def test_writers_of_the_same_new_series_of_many_models_all_get_through(over_two: Database, tmp_path: Path) -> None:
    """They may wait for each other over the workers; Citus ends one of them, and a retry helps."""

    def register(number: int) -> None:
        chance = random.Random(number)  # noqa: S311  (an order, not a secret)
        with DatabaseManager(over_two.settings) as db:
            db.monitoring.series()
            wait_until((tmp_path / "gate").exists, "the gate")
            for repeat in range(5):
                order = chance.sample(MODELS, len(MODELS))
                rows = [
                    {"metric_type": "t", "metric_name": f"new {repeat}", "metric_value": 1, "model_name": model}
                    for model in order
                ]
                for _ in range(50):
                    try:
                        db.monitoring.log_many(rows)
                    except ContentionError:  # noqa: PERF203  (the same)
                        time.sleep(chance.uniform(0, 0.1))
                    else:
                        break
                else:
                    raise AssertionError("50 tries")

    writers = [forked(lambda n=n: register(n)) for n in range(6)]  # type: ignore[misc]
    (tmp_path / "gate").touch()
    assert [exit_code(pid) for pid in writers] == [0] * 6
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == 6 * 5 * len(MODELS)
    assert over_two.value("SELECT count(*) FROM mlops_internal.metric_series") == 5 * len(MODELS)
