"""Whoever keeps a job waiting for a lock is named, and nobody waits for ever."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import ContentionError
from support.database import Database
from support.sessions import another_session

pytestmark = pytest.mark.libraries

ROW = {"metric_type": "drift", "metric_name": "psi", "metric_value": 1.0}
NEW_ROW = "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('new', '1')"
LOCK = "LOCK TABLE {} IN {} MODE"


def change(db: DatabaseManager) -> object:
    return db.execute_query("UPDATE model_versions SET f1_score = 0.5 WHERE mlflow_run_id = 'run-1'")


def promote(db: DatabaseManager) -> object:
    return db.models.promote("run-1")


def log(db: DatabaseManager) -> object:
    return db.monitoring.log("drift", "psi", 1.0)


# What somebody else has done, what of ours waits for it, and whether the row tells who it is.
CASES: dict[str, tuple[str, Callable[[DatabaseManager], object], bool]] = {
    "a row locked": ("SELECT FROM model_versions WHERE mlflow_run_id = 'run-1' FOR UPDATE", promote, True),
    "a row locked in a savepoint": (
        "SAVEPOINT one; SELECT FROM model_versions WHERE mlflow_run_id = 'run-1' FOR UPDATE", promote, True,
    ),
    "a row shared": ("SELECT FROM model_versions WHERE mlflow_run_id = 'run-1' FOR SHARE", promote, True),
    "a row changed": ("UPDATE model_versions SET f1_score = 0.1 WHERE mlflow_run_id = 'run-1'", change, True),
    "a row deleted": ("DELETE FROM model_versions WHERE mlflow_run_id = 'run-1'", change, True),
    "a run registered": (NEW_ROW, lambda db: db.models.register("new", "1"), False),
    "a series begun": (
        "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'psi', 1)",
        log, False,
    ),
    "a table locked": (LOCK.format("model_versions", "ACCESS EXCLUSIVE"), promote, True),
    "a table locked for writers": (LOCK.format("monitoring_metrics", "SHARE"), log, True),
    "a table locked for COPY": (
        LOCK.format("monitoring_metrics", "EXCLUSIVE"), lambda db: db.monitoring.log_many([ROW]), True,
    ),
    "a table read": (
        "SELECT FROM model_versions", lambda db: db.execute_query("LOCK TABLE model_versions"), False,
    ),
}  # fmt: skip


@pytest.fixture
def filled(head: Database) -> Database:
    with DatabaseManager(head.settings) as db:
        for run in ("run-1", "run-2"):
            db.models.register(run, run)
    return head


@pytest.fixture
def bystanders(filled: Database) -> Iterator[None]:
    """Sessions that hold other things, and were there before."""
    with (
        another_session(
            filled, "a bystander", "UPDATE model_versions SET f1_score = 0.2 WHERE mlflow_run_id = 'run-2'"
        ),
        another_session(filled, "a bystander", "LOCK TABLE retraining_decisions IN ROW EXCLUSIVE MODE"),
    ):
        yield


@pytest.mark.parametrize(("done", "call", "output"), CASES.values(), ids=CASES)
def test_who_holds_a_lock_is_named(
    filled: Database,
    done: str,
    call: Callable[[DatabaseManager], object],
    output: bool,  # noqa: FBT001  (a parameter)
) -> None:
    with (
        DatabaseManager(replace(filled.settings, pool_lock_timeout=150)) as db,
        another_session(filled, "a guest", *done.split("; ")) as guest,
    ):
        named = rf"(?m); it {'is' if output else 'may be'} held by pid {guest.info.backend_pid} \(a guest, role \w+\)$"
        with pytest.raises(ContentionError, match=named) as caught:
            call(db)
        assert caught.value.retryable
        assert "MLOPS_POOL_LOCK_TIMEOUT" in caught.value.hint
        assert "pg_terminate_backend" in caught.value.hint
        guest.rollback()
        call(db)


@pytest.mark.usefixtures("bystanders")
@pytest.mark.parametrize("case", ["a row locked", "a row changed", "a row deleted", "a table locked for writers"])
def test_those_who_hold_something_else_are_not(filled: Database, case: str) -> None:
    done, call, _ = CASES[case]
    with (
        DatabaseManager(replace(filled.settings, pool_lock_timeout=150)) as db,
        another_session(filled, "a guest", done),
        pytest.raises(ContentionError, match="a guest") as caught,
    ):
        call(db)
    assert "a bystander" not in str(caught.value)
