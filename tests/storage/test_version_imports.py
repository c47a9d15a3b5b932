"""Versions of another registry: what was decided here stays, and an import that is made again changes nothing."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.errors import InvalidValueError, TransitionError
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.version_imports import ImportedVersions, KnownVersion, import_versions

pytestmark = [pytest.mark.libraries, pytest.mark.full_postgresql]

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
RUNS = ("a", "b", "c")
SOURCE = "their registry"


def known(run: str, **values: Any) -> KnownVersion:
    created_at = NOON + timedelta(days=ord(run) - ord("a"))
    given = {"status": "staging", "f1_score": None, "brier_score": None, "changed_at": created_at} | values
    return KnownVersion(mlflow_run_id=run, model_version=run, created_at=created_at, **given)


def imported(db: DatabaseManager, *versions: KnownVersion) -> ImportedVersions:
    return import_versions(db, "churn", versions, source=SOURCE, reasoning="as there")


def stored(db: DatabaseManager) -> list[Any]:
    found: list[Any] = []
    for table in ("model_versions", "retraining_decisions"):
        rows = db.execute_query(f"SELECT * FROM {table} ORDER BY id")
        assert isinstance(rows, list)
        found += rows
    return found


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "Production"},
        {"f1_score": 1.1},
        {"brier_score": float("nan")},
        {"mlflow_run_id": "x" * 256},
        {"model_version": "x" * 51},
        {"created_at": datetime(2026, 3, 1)},  # noqa: DTZ001  (that is what is wrong)
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as failure:
        replace(known("a"), **wrong)
    assert failure.value.key == next(iter(wrong))


def test_their_clock_makes_no_moment_in_the_future_and_no_promotion_before_the_version(db: DatabaseManager) -> None:
    ahead = datetime.now(timezone.utc) + timedelta(days=300)
    first = replace(known("a"), created_at=ahead)
    assert imported(db, first, replace(first, mlflow_run_id="b", status="production", changed_at=NOON)).promoted
    imported(db, replace(first, mlflow_run_id="c", status="production", changed_at=ahead))

    third, second, first_here = db.models.list("churn")
    assert [third.mlflow_run_id, second.mlflow_run_id, first_here.mlflow_run_id] == ["c", "b", "a"]
    assert second.promoted_at is not None
    assert third.promoted_at is not None
    assert first_here.created_at < second.created_at <= second.promoted_at < third.created_at <= third.promoted_at
    assert third.promoted_at < ahead - timedelta(days=299)
    timeline = db.execute_query("SELECT model_version, previous_version, production_until FROM v_model_timeline")
    assert timeline == [("a", "a", None), ("a", None, third.promoted_at), ("a", None, None)]


def test_their_own_rollback_is_followed(db: DatabaseManager) -> None:
    for run in ("a", "b", "a", "b"):
        result = imported(db, *(known(each, status="production" if each == run else "staging") for each in "ab"))
        assert result.promoted is not None
        assert (result.promoted, result.conflicts) == (db.models.production("churn"), [])
        assert result.promoted.mlflow_run_id == run
    assert [decision.candidate for decision in db.decisions.history("churn")] == ["b", "a", "b", "a"]

    db.models.promote("a")
    (conflict,) = imported(db, known("a"), known("b", status="production")).conflicts
    assert "here version a is" in conflict.reason


def test_nothing_in_production_there_is_a_conflict_and_not_followed(db: DatabaseManager) -> None:
    imported(db, known("a", status="production"))
    before = stored(db)
    (conflict,) = imported(db, known("a")).conflicts
    assert (conflict.model_version, conflict.what) == ("a", "stage")
    assert "in their registry no version that is registered here is" in conflict.reason
    assert stored(db) == before


@pytest.mark.parametrize(
    ("by_hand", "reason"),
    [
        ("status = 'production'", "here version a is"),
        ("status = 'archived', promoted_at = now()", "here no version is in production any more"),
    ],
)
def test_what_was_done_by_hand_stays(db: DatabaseManager, by_hand: str, reason: str) -> None:
    db.models.register("a", "a", model_name="churn")
    db.execute_query(f"UPDATE model_versions SET {by_hand}")
    before = stored(db)
    (conflict,) = imported(db, known("a"), known("b", status="production")).conflicts
    assert (conflict.model_version, conflict.what) == ("b", "stage")
    assert reason in conflict.reason
    assert stored(db)[: len(before)] == before


ACTIONS = ("import", "promote", "reject", "archive", "rollback", "record")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_nothing_that_was_decided_here_is_undone(db: DatabaseManager, data: st.DataObject) -> None:
    db.execute_query("TRUNCATE model_versions, retraining_decisions")
    ours = False  # whether what is in production, or that nothing is, was decided here
    archived: set[str] = set()  # here, and not promoted since
    for _ in range(data.draw(st.integers(1, 6))):
        action, run = data.draw(st.sampled_from(ACTIONS)), data.draw(st.sampled_from(RUNS))
        if action == "import":
            number, at = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 90))
            theirs = [
                known(each, status="production", changed_at=NOON + timedelta(days=at)) if each == run else known(each)
                for each in RUNS[:number]
            ]
            before = {version.mlflow_run_id: version for version in db.models.list()}
            result = imported(db, *theirs)
            for version in db.models.list():
                if ours and version.mlflow_run_id in before:
                    assert version == before[version.mlflow_run_id]
                assert version.status != "production" or version in (before.get(version.mlflow_run_id), result.promoted)
            assert not (ours and result.promoted)
            assert result.promoted is None or result.promoted.mlflow_run_id not in archived
            after = stored(db)
            again = imported(db, *theirs)
            assert stored(db) == after
            assert (again.registered, again.promoted) == ([], None)
            assert {version.mlflow_run_id for version in again.present} == set(RUNS[:number])
            continue
        db.models.register(run, run, model_name="churn")
        production = db.models.production("churn")
        try:
            if action == "promote":
                db.models.promote(run, even_rolled_back=True)
                ours = ours or production is None or production.mlflow_run_id != run
                archived.discard(run)
            elif action == "reject":
                db.models.reject(run)
                archived.add(run)
            elif action == "archive":
                # One that is archived already stays as it is, even if it was an import that did it.
                archived |= {run} - {version.mlflow_run_id for version in db.models.list(status="archived")}
                db.models.archive(run, even_production=True)
                ours = ours or (production is not None and production.mlflow_run_id == run)
            elif action == "rollback":
                db.models.rollback("churn", yes=True)
                ours = True
            else:
                db.decisions.record("pending", candidate=run, model_name="churn")
        except TransitionError:
            pass
