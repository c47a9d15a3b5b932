"""Waits for a turn end, and tell who has it: whoever may connect can take an advisory lock by hand."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import ContentionError
from support.database import Database
from support.sessions import another_session, wait_until

pytestmark = pytest.mark.libraries

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
ROWS = [{"metric_type": "drift", "metric_name": "psi", "metric_value": 1.0}]
MODEL, MOMENT = "mlops_db.model default", f"mlops_db.replace {NOON.isoformat()}"
# Each call that takes turns, and for what.
CALLS: dict[str, tuple[str, Callable[[DatabaseManager], object]]] = {
    "promote": (MODEL, lambda db: db.models.promote("run-2")),
    "rollback": (MODEL, lambda db: db.models.rollback(yes=True)),
    "reject": (MODEL, lambda db: db.models.reject("run-2")),
    "archive": (MODEL, lambda db: db.models.archive("run-2")),
    "record": (MODEL, lambda db: db.decisions.record("reject", candidate=None, decided_at=NOON)),
    "log_many": (MOMENT, lambda db: db.monitoring.log_many(ROWS, replace=NOON)),
}


@pytest.fixture
def filled(head: Database) -> Database:
    with DatabaseManager(head.settings) as db:
        for run in ("run-0", "run-1", "run-2"):
            db.models.register(run, run)
        db.models.promote("run-0")
        db.models.promote("run-1")
    return head


def held(key: str) -> str:
    return f"SELECT pg_advisory_xact_lock(hashtextextended('{key}', 0))"


@pytest.mark.parametrize(("key", "call"), CALLS.values(), ids=CALLS)
def test_a_wait_for_somebody_elses_turn_ends_and_names_who_has_it(
    filled: Database, key: str, call: Callable[[DatabaseManager], object]
) -> None:
    before = filled.query("TABLE model_versions"), filled.query("TABLE retraining_decisions")
    with (
        DatabaseManager(replace(filled.settings, lock_wait=200)) as db,
        another_session(filled, "a guest", held(key)) as guest,
    ):
        with pytest.raises(ContentionError, match=rf"pid {guest.info.backend_pid} \(a guest, role ") as failed:
            call(db)
        assert failed.value.retryable
        assert "after 0.2 s" in str(failed.value)
        assert "MLOPS_LOCK_WAIT" in failed.value.hint
        assert (filled.query("TABLE model_versions"), filled.query("TABLE retraining_decisions")) == before
        assert filled.value("SELECT count(*) FROM monitoring_metrics") == 0
        guest.rollback()
        call(db)


@pytest.mark.parametrize(("key", "call"), CALLS.values(), ids=CALLS)
def test_a_wait_is_over_as_soon_as_it_is_ones_turn_and_changes_no_timeout(
    filled: Database, key: str, call: Callable[[DatabaseManager], object]
) -> None:
    seen = []
    with (
        DatabaseManager(replace(filled.settings, parameters={"options": "-c lock_timeout=7s"})) as db,
        another_session(filled, "another", held(key)) as another,
        ThreadPoolExecutor(1) as jobs,
    ):
        job = jobs.submit(call, db)
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: job.done() or filled.value(waiting), "the call to wait")
        another.rollback()
        job.result()
        seen += db.execute_query("SHOW lock_timeout")  # type: ignore[operator]  # it has rows
    assert seen == [("7s",)]


def test_a_shorter_patience_of_the_session_stays(filled: Database) -> None:
    impatient = replace(filled.settings, parameters={"options": "-c lock_timeout=100ms"})
    with (
        DatabaseManager(impatient) as db,
        another_session(filled, "a guest", held(MODEL)),
        pytest.raises(ContentionError, match=r"after 0\.1 s"),
    ):
        db.models.promote("run-2")


def test_what_other_locks_are_waited_for_is_not_for_turns(filled: Database) -> None:
    with (
        DatabaseManager(replace(filled.settings, lock_wait=300, pool_lock_timeout=100)) as db,
        another_session(filled, "a guest", held(MODEL)),
        pytest.raises(ContentionError, match=r"after 0\.3 s"),
    ):
        db.models.promote("run-2")


def test_no_wait_at_all_is_no_endless_one(filled: Database) -> None:
    with (
        DatabaseManager(replace(filled.settings, lock_wait=0)) as db,
        another_session(filled, "a guest", held(MODEL)),
        pytest.raises(ContentionError, match="a guest"),
    ):
        db.models.promote("run-2")


def test_a_lock_of_somebody_elses_on_other_things_is_not_waited_for(filled: Database) -> None:
    with (
        DatabaseManager(replace(filled.settings, lock_wait=100)) as db,
        another_session(filled, "a guest", held("mlops_db.model another"), "SELECT pg_advisory_xact_lock(1)"),
    ):
        db.models.promote("run-2")
        assert db.monitoring.log_many(ROWS, replace=NOON).written == 1
