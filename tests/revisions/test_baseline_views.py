"""What the views of revision 0004 say about rows that later revisions refuse: of databases on their way there."""

import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.migration import commands
from mlops_db.project import BASELINE
from support import views_model
from support.database import Database
from support.gate_documents import gate_documents, gate_values
from support.table_rows import insert, rows, storable
from support.views_model import Row, comparable

at = datetime.fromisoformat


@pytest.fixture
def baseline(empty: Database) -> Database:
    commands.upgrade(empty.settings, BASELINE)
    return empty


def measure(database: Database, *measurements: Sequence[Any]) -> None:
    """Insert (id, timestamp, metric_type, metric_name, metric_value)."""
    columns = ("id", "timestamp", "metric_type", "metric_name", "metric_value")
    insert(database, "monitoring_metrics", *(dict(zip(columns, row, strict=True)) for row in measurements))


@pytest.mark.parametrize(
    "gate_results", [None, "null", "{}", "[]", '[{"passed": false}]', '"passed"', "1", "true", "false"]
)
def test_what_is_no_object_of_gates_says_nothing(baseline: Database, gate_results: str | None) -> None:
    baseline.query("INSERT INTO retraining_decisions (action, gate_results) VALUES ('reject', %s)", [gate_results])

    assert baseline.query("""
        SELECT gates_passed, gates_failed, gates_unknown, gates_not_run, first_failed_gate, all_gates_passed
          FROM v_decision_history
    """) == [(0, 0, 0, 6, None, False)]


def test_a_decision_without_an_action_is_no_promotion_and_one_without_a_time_comes_last(baseline: Database) -> None:
    failed = json.dumps({"sufficient_samples": {"passed": False}})
    baseline.query(
        "INSERT INTO retraining_decisions (id, decision_timestamp, action, gate_results)"
        " VALUES (1, '1999-01-01', NULL, %(failed)s), (2, NULL, 'promote', %(failed)s)",
        {"failed": failed},
    )

    assert baseline.query("SELECT id, promoted_with_failed_gate FROM v_decision_history") == [(1, False), (2, True)]


def test_measurements_without_type_name_or_value_are_series_too(baseline: Database) -> None:
    measure(
        baseline,
        (1, "2026-01-01", None, None, 1.0),
        (2, "2026-01-02", None, None, None),
        (3, "2026-01-03", "drift", None, 1.0),
        (4, "2026-01-04", None, "share", 1.0),
    )

    assert baseline.query("SELECT id, previous_value, delta FROM v_recent_monitoring") == [
        (4, None, None),
        (3, None, None),
        (2, 1.0, None),
    ]


def test_a_measurement_without_a_time_is_older_than_any_with_one(baseline: Database) -> None:
    measure(
        baseline,
        (1, "1999-01-01", "drift", "share", 1.0),
        (2, None, "drift", "share", 2.0),
        (3, None, "coverage", "rate", 3.0),
    )

    assert baseline.query("SELECT id, previous_value, age IS NULL FROM v_recent_monitoring") == [
        (1, 2.0, False),
        (3, None, True),
    ]


@pytest.mark.parametrize("revision", ["0004", "0019"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_age_does_not_depend_on_the_session_s_time_zone(empty: Database, revision: str, zone: str) -> None:
    commands.upgrade(empty.settings, revision)
    now = "now() AT TIME ZONE 'UTC'" if revision == "0004" else "now()"
    with empty.connection.transaction():
        empty.query(f"""
            INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name)
            VALUES (({now}) - interval '90 minutes', 'drift', 'share')
        """)
        empty.query(f"SET LOCAL TIME ZONE '{zone}'")

        assert empty.value("SELECT age FROM v_recent_monitoring") == timedelta(minutes=90)


def test_a_time_that_is_not_finite_does_not_stop_the_view(baseline: Database) -> None:
    # Before PostgreSQL 17 an infinite timestamp cannot be subtracted.
    measure(
        baseline,
        (1, "infinity", "drift", "share", 1.0),
        (2, "-infinity", "drift", "another", 1.0),
        (3, "2026-01-01", "drift", "other", 2.0),
    )

    assert baseline.query("SELECT id FROM v_recent_monitoring") == [(1,), (3,), (2,)]
    assert baseline.value("SELECT count(age) FROM v_recent_monitoring") >= 1


def test_a_value_that_is_not_finite_does_not_stop_the_view(baseline: Database) -> None:
    measure(
        baseline,
        (1, "2026-01-01", "performance", "brier", math.inf),
        (2, "2026-01-02", "performance", "brier", math.inf),
        (3, "2026-01-02", "performance", "ece", math.nan),
    )

    assert baseline.query("SELECT id, delta::text FROM v_recent_monitoring") == [(3, None), (2, "NaN")]


# Any rows at all: the views agree with a model of them in plain Python.

some_settings = settings(
    max_examples=100,
    derandomize=True,
    # Each example's rows are rolled back, so that one database serves all of them.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Few values, so that ties, shared series and repeated candidates are frequent.
times = st.none() | st.sampled_from([at(f"2026-01-0{day} {hour}:00") for day in (1, 2) for hour in ("00", "12")])
scores = st.none() | st.sampled_from([0.0, 0.1, 0.7, 1.0, math.inf, -math.inf, math.nan])
runs = st.sampled_from(["run-1", "run-2", "run-3", "run-4"])
json_documents = gate_documents | gate_documents | gate_values


def table_of(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    """Rows with ids that do not follow the order of insertion."""
    return st.lists(
        st.fixed_dictionaries({"id": st.integers(1, 1000), **columns}), max_size=12, unique_by=lambda row: row["id"]
    )


version_rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(1, 1000),
            "mlflow_run_id": st.text("abc", min_size=1, max_size=3) | runs,
            "model_version": st.sampled_from(["9", "10", "v1"]),
            "status": st.none() | st.sampled_from(["staging", "production", "archived"]),
            "f1_score": scores,
            "brier_score": scores,
            "created_at": times,
            "promoted_at": times,
        }
    ),
    max_size=12,
    unique_by=(lambda row: row["id"], lambda row: row["mlflow_run_id"]),
)
decision_rows = table_of(
    decision_timestamp=times,
    action=st.none() | st.sampled_from(["promote", "reject", "pending"]),
    candidate_mlflow_run_id=st.none() | runs,
    gate_results=json_documents,
    reasoning=st.none() | st.just("why"),
    created_at=times,
)
measurement_rows = table_of(
    timestamp=times,
    metric_type=st.none() | st.sampled_from(["drift", "coverage"]),
    metric_name=st.none() | st.sampled_from(["a", "b"]),
    metric_value=scores,
    metadata=st.none(),
    created_at=times,
)


def agree(answer: Iterable[Row], expected: Iterable[Row]) -> None:
    assert comparable(answer) == comparable(expected)


@pytest.mark.slow
@some_settings
@given(versions=version_rows, decisions=decision_rows)
def test_v_decision_history_is_what_the_model_says(
    baseline: Database, versions: list[Row], decisions: list[Row]
) -> None:
    with baseline.connection.transaction(force_rollback=True):
        insert(baseline, "model_versions", *versions)
        insert(baseline, "retraining_decisions", *map(storable, decisions))

        agree(rows(baseline, "SELECT * FROM v_decision_history"), views_model.decision_history(decisions, versions))


@pytest.mark.slow
@some_settings
@given(versions=version_rows)
def test_v_model_timeline_is_what_the_model_says(baseline: Database, versions: list[Row]) -> None:
    with baseline.connection.transaction(force_rollback=True):
        insert(baseline, "model_versions", *versions)

        expected = views_model.model_timeline_of_the_baseline(versions)
        agree(rows(baseline, "SELECT * FROM v_model_timeline"), expected)


@pytest.mark.slow
@some_settings
@given(measurements=measurement_rows)
def test_v_recent_monitoring_is_what_the_model_says(baseline: Database, measurements: list[Row]) -> None:
    with baseline.connection.transaction(force_rollback=True):
        insert(baseline, "monitoring_metrics", *measurements)

        now = baseline.value("SELECT CURRENT_TIMESTAMP AT TIME ZONE 'UTC'")
        agree(
            rows(baseline, "SELECT * FROM v_recent_monitoring"),
            views_model.recent_monitoring_of_the_baseline(measurements, now),
        )
