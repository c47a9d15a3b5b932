"""`db.models`: the stages of a version, one of each model in production, and every decision on record."""

import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db import DatabaseManager
from mlops_db.errors import (
    ConnectionLostError,
    DecisionConflictError,
    InvalidValueError,
    MlopsDbError,
    RegistrationConflictError,
    TransitionError,
    UnknownModelVersionError,
)
from mlops_db.schema.limits import STATUSES
from mlops_db.settings import Settings
from mlops_db.storage.model_versions import ModelVersion, ModelVersions
from support.database import Database
from support.forks import exit_code, forked
from support.sessions import wait_until

pytestmark = pytest.mark.libraries

if TYPE_CHECKING:
    from collections.abc import Callable

UTC = timezone.utc
AT_ONCE = 10


@pytest.fixture
def models(db: DatabaseManager) -> ModelVersions:
    return db.models


@pytest.fixture
def nowhere() -> ModelVersions:
    """What is refused is refused without a server."""
    return ModelVersions(DatabaseManager(Settings(host="/nonexistent")))


def report(error: MlopsDbError) -> str:
    assert len(f"{error}\n{error.hint}".splitlines()) == 2
    return str(error)


def stages(head: Database) -> dict[str, str]:
    return dict(head.query("SELECT mlflow_run_id, status FROM model_versions"))  # type: ignore[arg-type]


def decided(head: Database) -> list[tuple[Any, ...]]:
    return head.query("SELECT action, candidate_mlflow_run_id FROM retraining_decisions ORDER BY id")


def registered(models: ModelVersions, *runs: str, model_name: str = "default") -> None:
    for run in runs:
        models.register(run, f"v-{run}", model_name=model_name)


def test_the_stages_are_the_schemas(head: Database) -> None:
    check = head.value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'model_versions_status_check'"
    )
    assert re.findall(r"'(\w+)'", check) == list(STATUSES)


# Registering


def test_a_version_is_registered_in_staging(head: Database, models: ModelVersions) -> None:
    version = models.register("run", "7", model_name="churn", f1_score=0.75, brier_score=0)
    assert version == ModelVersion(1, "churn", "run", "7", "staging", 0.75, 0.0, version.created_at, None)
    assert version.created_at.tzinfo is UTC
    assert models.get("run") == version
    assert head.query(
        "SELECT model_name, mlflow_run_id, model_version, status, f1_score, brier_score, created_at, promoted_at"
        " FROM model_versions"
    ) == [("churn", "run", "7", "staging", 0.75, 0.0, version.created_at, None)]


def test_to_register_the_same_again_returns_what_is_there(head: Database, models: ModelVersions) -> None:
    version = models.register("run", "7", f1_score=0.75)
    assert models.register("run", "7", f1_score=0.75) == version
    assert models.register("run", "7") == version
    promoted = models.promote("run")
    assert models.register("run", "7", f1_score=np.float64(0.75)) == promoted
    assert head.value("SELECT count(*) FROM model_versions") == 1


@pytest.mark.parametrize("number", [7, np.int64(7), np.uint8(7), IntEnum("Version", "SEVENTH", start=7)(7)])
def test_a_version_that_is_a_number_is_its_digits(models: ModelVersions, number: Any) -> None:
    version = models.register("run", number)
    assert version.model_version == "7"
    assert models.register("run", "7") == models.register("run", number) == version
    with pytest.raises(RegistrationConflictError, match="model_version '7', not '8'"):
        models.register("run", number + 1)


def test_a_score_that_was_not_measured_is_filled_in(models: ModelVersions) -> None:
    models.register("run", "7")
    assert models.register("run", "7", f1_score=0.75).f1_score == 0.75
    filled = models.register("run", "7", brier_score=0.125)
    assert (filled.f1_score, filled.brier_score) == (0.75, 0.125)
    assert models.get("run") == filled


@pytest.mark.parametrize(
    ("key", "value"), [("model_version", "8"), ("model_name", "churn"), ("f1_score", 0.5), ("brier_score", 0.5)]
)
def test_to_register_a_run_with_another_value_is_refused_by_its_name(
    models: ModelVersions, key: str, value: Any
) -> None:
    given: dict[str, Any] = {"model_version": "7", "f1_score": 0.75, "brier_score": 0.125}
    version = models.register("run", **given)
    with pytest.raises(RegistrationConflictError) as caught:
        models.register("run", **(given | {key: value}))
    assert caught.value.key == key
    assert f"with {key} {getattr(version, key)!r}, not {value!r}" in report(caught.value)
    assert models.get("run") == version


def test_a_refused_registration_fills_nothing_in(models: ModelVersions) -> None:
    version = models.register("run", "7")
    with pytest.raises(RegistrationConflictError):
        models.register("run", "8", f1_score=0.5)
    assert models.get("run") == version


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mlflow_run_id", ""),
        ("mlflow_run_id", "x" * 256),
        ("mlflow_run_id", None),
        ("model_version", "x" * 51),
        ("model_version", "\0"),
        ("model_version", True),
        ("model_version", np.bool_(True)),  # noqa: FBT003  (a version of NumPy's)
        ("model_version", 7.0),
        ("model_version", Decimal(7)),
        ("model_version", 10**50),
        pytest.param("model_version", 10**5000, id="too long for Python to spell"),
        ("model_version", np.array([7])),
        ("model_name", "\t"),
        ("model_name", "\ud800"),
        ("f1_score", 1.0000001),
        ("f1_score", math.nan),
        ("f1_score", "0.5"),
        ("brier_score", -0.1),
        ("brier_score", math.inf),
        ("brier_score", np.float32("nan")),
    ],
)
def test_what_cannot_be_registered_is_refused_by_its_name(nowhere: ModelVersions, key: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        nowhere.register(**{"mlflow_run_id": "run", "model_version": "7", key: value})
    assert caught.value.key == key
    assert report(caught.value).startswith(f"{key}: ")


def test_one_run_registered_by_many_at_once_is_one_version(head: Database, models: ModelVersions) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        versions = set(threads.map(lambda _: models.register("run", "7", f1_score=0.5), range(3 * AT_ONCE)))
    assert len(versions) == 1
    assert head.value("SELECT count(*) FROM model_versions") == 1


# Questions


def test_versions_are_listed_newest_first(models: ModelVersions) -> None:
    registered(models, "a", "b")
    registered(models, "c", model_name="churn")
    models.promote("a")
    assert [version.mlflow_run_id for version in models.list()] == ["c", "b", "a"]
    assert [version.mlflow_run_id for version in models.list("default")] == ["b", "a"]
    assert [version.mlflow_run_id for version in models.list(status="staging")] == ["c", "b"]
    assert models.list("churn", "production") == []
    assert [version.mlflow_run_id for version in models.list(limit=1)] == ["c"]


def test_what_is_not_there_is_none(models: ModelVersions) -> None:
    registered(models, "a")
    assert models.get("b") is None
    assert models.production() is None
    assert models.production("churn") is None


@pytest.mark.parametrize(
    ("method", "arguments", "key"),
    [
        ("get", ("",), "mlflow_run_id"),
        ("get", ("a\0",), "mlflow_run_id"),
        ("production", (None,), "model_name"),
        ("list", ("default", "live"), "status"),
        ("list", (None, None, -1), "limit"),
        ("promote", ("",), "mlflow_run_id"),
        ("reject", (None,), "mlflow_run_id"),
        ("rollback", ("",), "model_name"),
        ("archive", (7,), "mlflow_run_id"),
    ],
)
def test_a_call_that_is_none_is_refused_by_name(
    nowhere: ModelVersions, method: str, arguments: tuple[Any, ...], key: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        getattr(nowhere, method)(*arguments)
    assert caught.value.key == key


FLAGS = (("promote", "even_rolled_back"), ("rollback", "yes"), ("archive", "even_production"))


@pytest.mark.parametrize(
    ("method", "key", "value"),
    [
        *(
            (method, "decided_by", value)
            for method in ("promote", "reject", "rollback")
            for value in (" ", 7, "x" * 256)
        ),
        *((method, "reasoning", "a\0") for method in ("promote", "reject", "rollback")),
        *((method, "gates", [True]) for method in ("promote", "reject")),
        *(("promote", "instead_of", value) for value in ("", 7)),
        ("reject", "decided_at", datetime(2026, 3, 1)),  # noqa: DTZ001  (what is refused)
        ("rollback", "of", ""),
        ("rollback", "of", None),
        *((method, key, value) for method, key in FLAGS for value in ("False", 1, None)),
    ],
)
def test_what_cannot_be_decided_is_refused_by_its_name(
    nowhere: ModelVersions, method: str, key: str, value: Any
) -> None:
    given = {"of": "a"} if method == "rollback" else {}
    with pytest.raises(InvalidValueError) as caught:
        getattr(nowhere, method)("a", **(given | {key: value}))
    assert caught.value.key == key
    assert report(caught.value).startswith(f"{key}: ")


# Promoting


def test_a_promotion_archives_the_predecessor_and_records_the_decision(head: Database, db: DatabaseManager) -> None:
    registered(db.models, "a", "b")
    registered(db.models, "other", model_name="churn")
    db.models.promote("other")
    first = db.models.promote("a")
    assert first.status == "production"
    assert first.promoted_at is not None
    assert first.promoted_at.tzinfo is UTC

    second = db.models.promote("b", gates={"sufficient_samples": {"passed": True}}, reasoning="it is better")

    assert stages(head) == {"a": "archived", "b": "production", "other": "production"}
    assert db.models.production() == second == db.models.get("b")
    assert second.promoted_at is not None
    assert second.promoted_at > first.promoted_at
    decision = db.decisions.history("default", limit=1)[0]
    assert (decision.action, decision.candidate, decision.reasoning) == ("promote", "b", "it is better")
    assert decision.gates == {"sufficient_samples": {"passed": True}}
    assert decision.decided_at == second.promoted_at
    assert decided(head) == [("promote", "other"), ("promote", "a"), ("promote", "b")]


def test_an_archived_version_can_be_promoted_again(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b")
    before = models.promote("a")
    models.promote("b")
    again = models.promote("a")
    assert stages(head) == {"a": "production", "b": "archived"}
    assert again.promoted_at is not None
    assert before.promoted_at is not None
    assert again.promoted_at > before.promoted_at


def test_to_promote_what_is_in_production_records_only_what_is_new(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    gates = {"calibration_maintained": {"passed": True, "brier_change": math.inf}}
    version = models.promote("a", gates=gates, reasoning="better")
    assert models.promote("a", gates=gates, reasoning="better") == version
    assert len(decided(head)) == 1
    assert models.promote("a", gates=gates, reasoning="looked at it again") == version
    assert models.promote("a", gates=gates, reasoning="better") == version
    assert len(decided(head)) == 2
    assert stages(head) == {"a": "production"}


def test_an_earlier_promotion_does_not_stand_for_a_later_one(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b")
    for run in ("a", "b", "a", "b"):
        models.promote(run)
        models.promote(run)
    assert decided(head) == [("promote", "a"), ("promote", "b"), ("promote", "a"), ("promote", "b")]


def test_a_version_that_was_put_into_production_by_hand_gets_its_time(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    head.query("UPDATE model_versions SET status = 'production'")
    assert models.promote("a").promoted_at is not None
    assert decided(head) == [("promote", "a")]


def test_a_promotion_is_later_than_the_last_one_however_the_clock_was_set(
    head: Database, models: ModelVersions
) -> None:
    registered(models, "a", "b")
    models.promote("a")
    head.query("UPDATE model_versions SET promoted_at = now() + interval '1 hour' WHERE mlflow_run_id = 'a'")
    later = models.promote("b")
    assert later.promoted_at is not None
    assert later.promoted_at > datetime.now(UTC)
    assert models.rollback(yes=True).mlflow_run_id == "a"


def test_a_promotion_that_waited_is_of_the_time_after_it(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    with ThreadPoolExecutor(1) as threads, head.connection.transaction():
        head.query("SELECT pg_advisory_xact_lock(hashtextextended('mlops_db.model default', 0))")
        promotion = threads.submit(models.promote, "a")
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: promotion.done() or head.value(waits), "the promotion to wait")
        assert not promotion.done()
        waited = head.value("SELECT clock_timestamp()")
    promoted_at = promotion.result().promoted_at
    assert promoted_at is not None
    assert promoted_at > waited


def test_a_promotion_instead_of_another_version_than_is_there_is_refused(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b", "c")
    registered(models, "other", model_name="churn")
    models.promote("other")
    for expected in ("a", "b", "other", "nobody"):
        with pytest.raises(TransitionError, match=f"'{expected}' is not in production .* no version is"):
            models.promote("a", instead_of=expected)
    models.promote("a")
    promoted = models.promote("b", instead_of="a")
    assert models.promote("b", instead_of="a") == models.promote("b", instead_of="b") == promoted
    with pytest.raises(TransitionError) as caught:
        models.promote("c", instead_of="a")
    assert "'a' is not in production of model 'default', 'b' is" in report(caught.value)
    assert stages(head) == {"a": "archived", "b": "production", "c": "staging", "other": "production"}
    assert decided(head) == [("promote", "other"), ("promote", "a"), ("promote", "b")]


def test_an_old_promotion_that_is_run_again_undoes_no_later_one(models: ModelVersions) -> None:
    registered(models, "a", "b", "c")
    models.promote("a")
    models.promote("b", instead_of="a")
    newest = models.promote("c", instead_of="b")
    with pytest.raises(TransitionError):
        models.promote("b", instead_of="a")
    assert models.production() == newest


def test_an_old_promotion_that_is_run_again_undoes_no_rollback(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b")
    models.promote("a")
    models.promote("b")
    restored = models.rollback(of="b")
    for arguments in ({}, {"instead_of": "a"}, {"reasoning": "better"}):
        with pytest.raises(TransitionError) as caught:
            models.promote("b", **arguments)
        assert "'b' was rolled back at " in report(caught.value)
        assert "even_rolled_back=True" in caught.value.hint
    assert models.production() == restored
    assert len(decided(head)) == 4
    again = models.promote("b", even_rolled_back=True)
    assert models.promote("b") == again
    models.promote("a")
    assert models.promote("b").status == "production"  # as any other version from now on


def test_a_rollback_of_a_version_that_was_put_there_by_hand_is_not_undone_either(
    head: Database, models: ModelVersions
) -> None:
    registered(models, "a", "b")
    models.promote("a")
    head.query("UPDATE model_versions SET status = 'archived'")
    head.query("UPDATE model_versions SET status = 'production' WHERE mlflow_run_id = 'b'")
    models.rollback(of="b")
    with pytest.raises(TransitionError, match="'b' was rolled back"):
        models.promote("b")


def test_a_rejection_that_was_no_rollback_does_not_keep_a_version_from_production(models: ModelVersions) -> None:
    registered(models, "a")
    models.reject("a")
    assert models.promote("a").status == "production"


@pytest.mark.parametrize("method", ["promote", "archive", "reject"])
def test_an_unknown_run_is_told_to_be_registered(head: Database, models: ModelVersions, method: str) -> None:
    with pytest.raises(UnknownModelVersionError) as caught:
        getattr(models, method)("nobody")
    assert "'nobody'" in report(caught.value)
    assert decided(head) == []


def test_gates_that_cannot_be_stored_promote_nothing(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    with pytest.raises(InvalidValueError) as caught:
        models.promote("a", gates={"x": {"y": object()}})
    assert caught.value.key == "gates.x.y"
    assert stages(head) == {"a": "staging"}


def test_a_promotion_whose_decision_cannot_be_recorded_changes_nothing(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b")
    models.promote("a")
    head.query("""
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
        CREATE TRIGGER die BEFORE INSERT ON retraining_decisions FOR EACH ROW EXECUTE FUNCTION die();
    """)
    for call in (partial(models.promote, "b"), partial(models.rollback, yes=True)):
        with pytest.raises((ConnectionLostError, TransitionError)):
            call()
        assert stages(head) == {"a": "production", "b": "staging"}
    assert decided(head) == [("promote", "a")]


# At once


def check_history(head: Database, promotions: int) -> None:
    """One in production, the one that was promoted last; each promotion recorded, in the order of the promotions."""
    assert head.value("SELECT count(*) FROM model_versions WHERE status = 'production'") == 1
    assert head.value("SELECT count(*) FROM retraining_decisions WHERE action = 'promote'") == promotions
    assert head.query(
        "SELECT mlflow_run_id FROM model_versions WHERE promoted_at = (SELECT max(promoted_at) FROM model_versions)"
    ) == head.query("SELECT mlflow_run_id FROM model_versions WHERE status = 'production'")
    assert head.value(
        "SELECT bool_and(ordered) FROM (SELECT decision_timestamp > lag(decision_timestamp) OVER (ORDER BY id)"
        " AS ordered FROM retraining_decisions) AS decisions"
    )


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_promotions_by_many_processes_at_once(head: Database, models: ModelVersions) -> None:
    runs = [str(number) for number in range(AT_ONCE)]
    registered(models, *runs)
    heard, ready = os.pipe()
    gate, opener = os.pipe()

    def promote(run: str) -> None:
        os.close(opener)
        models.production()  # connected
        os.write(ready, b".")
        os.read(gate, 1)  # which ends when the parent, too, has closed the other end
        models.promote(run, reasoning=run)

    children = [forked(partial(promote, run)) for run in runs]
    for _ in children:
        os.read(heard, 1)
    for end in (heard, ready, gate, opener):
        os.close(end)
    assert [exit_code(child) for child in children] == [0] * AT_ONCE
    check_history(head, AT_ONCE)
    assert set(head.query("SELECT reasoning FROM retraining_decisions")) == {(run,) for run in runs}
    assert head.value("SELECT count(*) FROM model_versions WHERE status = 'archived'") == AT_ONCE - 1


def test_promotions_by_many_threads_at_once(head: Database, models: ModelVersions) -> None:
    runs = [str(number) for number in range(AT_ONCE)]
    registered(models, *runs)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(models.promote, runs))
        check_history(head, AT_ONCE)
        list(threads.map(lambda run: models.promote(run, reasoning="once more"), runs * 3))
    assert head.value("SELECT count(*) FROM model_versions WHERE status = 'production'") == 1


def test_one_run_promoted_by_many_at_once_is_one_promotion(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        versions = set(threads.map(lambda _: models.promote("a"), range(AT_ONCE)))
    assert len(versions) == 1
    assert decided(head) == [("promote", "a")]


def test_of_many_promotions_instead_of_one_version_one_takes_its_place(head: Database, models: ModelVersions) -> None:
    runs = [str(number) for number in range(AT_ONCE)]
    registered(models, "a", *runs)
    models.promote("a")

    def promote(run: str) -> bool:
        try:
            models.promote(run, instead_of="a")
        except TransitionError:
            return False
        return True

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert sorted(threads.map(promote, runs)) == [False] * (AT_ONCE - 1) + [True]
    check_history(head, 2)


# Rejecting


def test_a_rejected_candidate_is_archived_and_the_decision_recorded(db: DatabaseManager) -> None:
    registered(db.models, "a", model_name="churn")
    rejected = db.models.reject("a", gates={"minimum_coverage": False}, reasoning="too few", decided_by="ada")
    assert (rejected, rejected.status) == (db.models.get("a"), "archived")
    (decision,) = db.decisions.history()
    assert (decision.model_name, decision.action, decision.candidate) == ("churn", "reject", "a")
    assert (decision.gates, decision.reasoning) == ({"minimum_coverage": False}, "too few")
    assert (decision.decided_by, decision.is_rollback) == ("ada", False)


def test_a_rejection_that_is_repeated_is_recorded_once_unless_it_says_something_new(
    head: Database, models: ModelVersions
) -> None:
    registered(models, "a", "b")
    rejected = models.reject("a", reasoning="worse")
    assert models.reject("a", reasoning="worse", decided_by="ada") == rejected
    assert len(decided(head)) == 1
    assert models.reject("a", reasoning="and slower") == rejected
    assert len(decided(head)) == 2
    models.promote("a")
    models.promote("b")
    models.reject("a", reasoning="worse")
    assert len(decided(head)) == 5


def test_of_one_moment_one_rejection_is_recorded_however_late_it_is_repeated(
    head: Database, db: DatabaseManager
) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    registered(db.models, "a", "b")
    db.decisions.record("reject", candidate="a", decided_at=noon)
    db.models.reject("a", decided_at=noon)
    db.models.promote("a")
    with pytest.raises(TransitionError, match="'a' is in production"):
        db.models.reject("a", decided_at=noon)
    db.models.promote("b")
    db.models.reject("a", decided_at=noon)
    assert db.models.rollback(of="b").mlflow_run_id == "a"
    registered(db.models, "c")
    db.models.reject("c", decided_at=noon)
    with pytest.raises(DecisionConflictError):
        db.models.reject("c", decided_at=noon, reasoning="worse")
    assert decided(head).count(("reject", "a")) == decided(head).count(("reject", "c")) == 1


def test_the_version_in_production_is_not_rejected(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    models.promote("a")
    with pytest.raises(TransitionError) as caught:
        models.reject("a")
    assert "'a' is in production" in report(caught.value)
    assert stages(head) == {"a": "production"}
    assert decided(head) == [("promote", "a")]


def test_a_rejection_whose_version_cannot_be_archived_is_not_recorded(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    head.query("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE check_violation; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON model_versions FOR EACH ROW EXECUTE FUNCTION refuse();
    """)
    with pytest.raises(MlopsDbError):
        models.reject("a")
    assert decided(head) == []


def test_one_candidate_rejected_by_many_at_once_is_rejected_once(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert len(set(threads.map(lambda _: models.reject("a"), range(AT_ONCE)))) == 1
    assert decided(head) == [("reject", "a")]


# Rolling back


@pytest.mark.parametrize("arguments", [{}, {"yes": False}, {"reasoning": "complaints"}])
def test_a_rollback_of_nobody_knows_what_is_refused_before_anything_is_sent(
    nowhere: ModelVersions, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        nowhere.rollback("churn", **arguments)
    assert caught.value.key == "of"
    assert "rollback('churn', of=" in caught.value.hint
    assert "rollback('churn', yes=True)" in caught.value.hint
    report(caught.value)


def test_three_rollbacks_in_a_row_go_back_three_times_if_each_says_of_what(models: ModelVersions) -> None:
    registered(models, "a", "b", "c", "d")
    for run in ("a", "b", "c", "d"):
        models.promote(run)
    assert [models.rollback(of=run).mlflow_run_id for run in ("d", "c", "b")] == ["c", "b", "a"]


def test_a_rollback_can_be_asked_for(head: Database, db: DatabaseManager) -> None:
    registered(db.models, "a", "b", "c")
    db.models.promote("a")
    db.models.promote("b")
    db.models.rollback(of="b", decided_by="ada")
    db.models.reject("c")
    back, gone = db.decisions.history(action="rollback")
    assert [(each.action, each.candidate, each.decided_by) for each in (gone, back)] == [
        ("reject", "b", "ada"),
        ("promote", "a", "ada"),
    ]
    assert db.decisions.history("default", "rollback", "a") == [back]
    assert db.decisions.history("churn", "rollback") == []
    assert head.query("SELECT id, action, decided_by FROM v_decision_history WHERE is_rollback") == [
        (back.id, "promote", "ada"),
        (gone.id, "reject", "ada"),
    ]


def test_a_rollback_goes_back_one_version_and_records_both_decisions(head: Database, db: DatabaseManager) -> None:
    registered(db.models, "a", "b", "c")
    for run in ("a", "b", "c"):
        promoted = db.models.promote(run)
    restored = db.models.rollback(of="c", reasoning="complaints")
    assert (restored.mlflow_run_id, restored.status) == ("b", "production")
    assert stages(head) == {"a": "archived", "b": "production", "c": "archived"}
    assert promoted.promoted_at is not None
    assert restored.promoted_at is not None
    assert restored.promoted_at > promoted.promoted_at
    back, gone = db.decisions.history(limit=2)
    assert (gone.action, gone.candidate, gone.reasoning) == ("reject", "c", "complaints")
    assert (back.action, back.candidate, back.reasoning) == ("promote", "b", "complaints")
    assert gone.decided_at == back.decided_at == restored.promoted_at


def test_rollbacks_never_come_back_to_what_was_rolled_back(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b", "c", "d")
    for run in ("a", "b", "c"):
        models.promote(run)
    assert models.rollback(yes=True).mlflow_run_id == "b"
    assert models.rollback(yes=True).mlflow_run_id == "a"
    with pytest.raises(TransitionError) as caught:
        models.rollback(yes=True)
    assert "no version that was in production before 'a'" in report(caught.value)
    models.promote("d")
    assert models.rollback(yes=True).mlflow_run_id == "a"
    assert stages(head) == {"a": "production", "b": "archived", "c": "archived", "d": "archived"}
    for run in ("c", "d"):  # by somebody who knows better: they count again
        models.promote(run, even_rolled_back=True)
    assert models.rollback(yes=True).mlflow_run_id == "c"


def test_a_rejection_before_the_promotion_does_not_count(db: DatabaseManager) -> None:
    registered(db.models, "a", "b")
    db.decisions.record("reject", candidate="a")
    db.models.promote("a")
    db.models.promote("b")
    assert db.models.rollback(yes=True).mlflow_run_id == "a"


def test_a_rollback_leaves_alone_what_was_never_in_production(models: ModelVersions) -> None:
    registered(models, "a", "b", "c")
    registered(models, "other", model_name="churn")
    models.promote("other")
    models.archive("other", even_production=True)
    models.archive("b")
    models.promote("a")
    with pytest.raises(TransitionError):
        models.rollback(yes=True)
    assert models.production() == models.get("a")


def test_a_rollback_of_what_is_not_in_production_is_refused(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b", "c")
    with pytest.raises(TransitionError, match="no version in production"):
        models.rollback(yes=True)
    for run in ("a", "b", "c"):
        models.promote(run)
    assert models.rollback(of="c").mlflow_run_id == "b"
    with pytest.raises(TransitionError) as caught:
        models.rollback(of="c")
    assert "'b' is" in report(caught.value)
    assert stages(head) == {"a": "archived", "b": "production", "c": "archived"}
    assert len(decided(head)) == 5


def test_a_rollback_by_two_people_at_once_goes_back_once(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b", "c")
    for run in ("a", "b", "c"):
        models.promote(run)

    def roll_back(_: int) -> bool:
        try:
            models.rollback(of="c")
        except TransitionError:
            return False
        return True

    with ThreadPoolExecutor(AT_ONCE) as threads:
        assert sorted(threads.map(roll_back, range(AT_ONCE))) == [False] * (AT_ONCE - 1) + [True]
    assert stages(head) == {"a": "archived", "b": "production", "c": "archived"}


def test_rollbacks_at_once_come_one_after_the_other(head: Database, models: ModelVersions) -> None:
    runs = [str(number) for number in range(AT_ONCE)]
    registered(models, *runs)
    for run in runs:
        models.promote(run)
    with ThreadPoolExecutor(AT_ONCE - 1) as threads:
        back = list(threads.map(lambda _: models.rollback(yes=True).mlflow_run_id, range(AT_ONCE - 1)))
    assert sorted(back, reverse=True) == runs[-2::-1]
    assert models.production() == models.get("0")
    assert head.value("SELECT count(*) FROM retraining_decisions WHERE action = 'reject'") == AT_ONCE - 1


def test_a_version_in_production_by_hand_can_be_rolled_back(head: Database, models: ModelVersions) -> None:
    registered(models, "a", "b")
    models.promote("a")
    head.query("UPDATE model_versions SET status = CASE mlflow_run_id WHEN 'b' THEN 'staging' ELSE 'archived' END")
    head.query("UPDATE model_versions SET status = 'production' WHERE mlflow_run_id = 'b'")
    assert models.rollback(yes=True).mlflow_run_id == "a"


# Archiving


def test_a_version_is_archived_and_stays_so(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    archived = models.archive("a")
    assert archived.status == "archived"
    assert models.archive("a") == archived
    assert decided(head) == []


def test_the_version_in_production_is_archived_only_on_demand(head: Database, models: ModelVersions) -> None:
    registered(models, "a")
    models.promote("a")
    with pytest.raises(TransitionError) as caught:
        models.archive("a")
    assert "'a' is in production" in report(caught.value)
    assert stages(head) == {"a": "production"}
    assert models.archive("a", even_production=True).status == "archived"
    assert models.production() is None


# Any calls in any order: the same as a model of them in plain Python.


@dataclass
class Version:
    """What a version has become."""

    status: str = "staging"
    promotion: int = -1  # the latest one's place among all promotions
    rejected: bool = False  # since then
    rolled_back: bool = False  # since then


class Model:
    """One model's versions, and the decisions about them."""

    def __init__(self, runs: list[str]) -> None:
        self.versions = {run: Version() for run in runs}
        self.decisions: list[tuple[str, str, bool]] = []
        self.promotions = 0

    def production(self) -> str | None:
        return next((run for run, version in self.versions.items() if version.status == "production"), None)

    def put_into_production(self, run: str, *, is_rollback: bool) -> None:
        if (current := self.production()) is not None:
            self.versions[current].status = "archived"
        self.versions[run] = Version("production", self.promotions)
        self.promotions += 1
        self.decisions.append(("promote", run, is_rollback))

    def promote(self, run: str, *, instead_of: str | None, even_rolled_back: bool) -> type[MlopsDbError] | None:
        version = self.versions[run]
        if version.status == "production":
            return None
        if version.rolled_back and not even_rolled_back:
            return TransitionError
        if instead_of not in (None, self.production()):
            return TransitionError
        self.put_into_production(run, is_rollback=False)
        return None

    def reject(self, run: str) -> type[MlopsDbError] | None:
        version = self.versions[run]
        if version.status == "production":
            return TransitionError
        if not version.rejected:
            self.decisions.append(("reject", run, False))
        version.status, version.rejected = "archived", True
        return None

    def archive(self, run: str, *, even_production: bool) -> type[MlopsDbError] | None:
        if self.versions[run].status == "production" and not even_production:
            return TransitionError
        self.versions[run].status = "archived"
        return None

    def rollback(self, *, of: str | None, yes: bool) -> type[MlopsDbError] | None:
        if of is None and not yes:
            return InvalidValueError
        current = self.production()
        if current is None or of not in (None, current):
            return TransitionError
        gone = self.versions[current]
        before = [
            (version.promotion, run)
            for run, version in self.versions.items()
            if version.status == "archived" and 0 <= version.promotion < gone.promotion and not version.rejected
        ]
        if not before:
            return TransitionError
        gone.rejected = gone.rolled_back = True
        self.decisions.append(("reject", current, True))
        self.put_into_production(max(before)[1], is_rollback=True)
        return None


RUNS = ["a", "b", "c"]
of_these = st.sampled_from(RUNS)
calls = st.one_of(
    st.tuples(
        st.just("promote"),
        of_these,
        st.fixed_dictionaries({"instead_of": st.none() | of_these, "even_rolled_back": st.booleans()}),
    ),
    st.tuples(st.just("promote"), of_these, st.just({"instead_of": None, "even_rolled_back": False})),
    st.tuples(st.just("rollback"), st.none(), st.just({"of": None, "yes": True})),
    st.tuples(st.just("reject"), of_these, st.just({})),
    st.tuples(st.just("archive"), of_these, st.fixed_dictionaries({"even_production": st.booleans()})),
    st.tuples(
        st.just("rollback"), st.none(), st.fixed_dictionaries({"of": st.none() | of_these, "yes": st.booleans()})
    ),
)


@given(calls=st.lists(calls, min_size=5, max_size=12))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_calls_in_any_order_do_what_the_model_says(
    db: DatabaseManager, calls: list[tuple[str, str | None, dict[str, Any]]]
) -> None:
    name = f"model {len(db.models.list(limit=None))}"  # its own in each example
    ids = {run: f"{run} of {name}" for run in RUNS}
    registered(db.models, *ids.values(), model_name=name)
    model = Model(list(ids.values()))
    for run in ids.values():  # so that there is something to go back to
        db.models.promote(run)
        model.promote(run, instead_of=None, even_rolled_back=False)
    for method, run, asked in calls:
        arguments = {key: ids.get(value, value) for key, value in asked.items()}  # type: ignore[call-overload]
        about = name if run is None else ids[run]
        expected = getattr(model, method)(*([] if run is None else [about]), **arguments)
        call: Callable[[], object] = partial(getattr(db.models, method), about, **arguments)
        if expected is None:
            call()
        else:
            with pytest.raises(expected):
                call()
        there = {version.mlflow_run_id: version.status for version in db.models.list(name)}
        assert there == {run: version.status for run, version in model.versions.items()}
    recorded = db.decisions.history(name, limit=None)[::-1]
    assert [(each.action, each.candidate, each.is_rollback) for each in recorded] == model.decisions
    assert recorded == sorted(recorded, key=lambda decision: (decision.decided_at, decision.id))
