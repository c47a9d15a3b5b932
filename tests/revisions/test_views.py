import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from support import views_model
from support.database import Database
from support.views_model import GATES, Row, comparable

# The specification's "Common Queries", letter for letter.
PRODUCTION_MODELS = """
SELECT * FROM model_versions 
WHERE status = 'production' 
ORDER BY promoted_at DESC;
"""  # noqa: W291  (letter for letter)
RECENT_DECISIONS = """
SELECT * FROM v_decision_history 
LIMIT 10;
"""  # noqa: W291
LATEST_MONITORING = """
SELECT * FROM v_recent_monitoring 
LIMIT 20;
"""  # noqa: W291
PROMOTION_TIMELINE = """
SELECT * FROM v_model_timeline 
ORDER BY created_at DESC;
"""  # noqa: W291

at = datetime.fromisoformat

PASSED, FAILED = {"passed": True}, {"passed": False}
NOTHING_RAN = (0, 0, 0, 6, None, False)


def rows(database: Database, query: str) -> list[Row]:
    return database.connection.cursor(row_factory=dict_row).execute(query).fetchall()


def insert(database: Database, table: str, *given: Row) -> None:
    for row in given:
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join([sql.Placeholder()] * len(row)),
        )
        database.connection.execute(statement, list(row.values()))


def gates_of(database: Database, gate_results: str | None) -> tuple[Any, ...]:
    """What v_decision_history says about the gates of a decision with this JSON."""
    database.query("INSERT INTO retraining_decisions (action, gate_results) VALUES ('reject', %s)", [gate_results])
    return database.query("""
        SELECT gates_passed, gates_failed, gates_unknown, gates_not_run, first_failed_gate, all_gates_passed
          FROM v_decision_history
    """)[0]


def timeline(database: Database, *columns: str) -> dict[str, tuple[Any, ...]]:
    """These columns of v_model_timeline for each version."""
    return {
        row["model_version"]: tuple(row[column] for column in columns)
        for row in rows(database, "SELECT * FROM v_model_timeline")
    }


# The Common Queries


def test_production_models_are_listed_by_their_promotion(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, status, promoted_at)
        VALUES ('a', '1', 'archived', '2026-01-01'), ('b', '2', 'production', '2026-02-01'), ('c', '3', 'staging', NULL)
    """)

    assert [row["model_version"] for row in rows(head, PRODUCTION_MODELS)] == ["2"]


def test_recent_decisions_are_the_ten_newest_in_that_order(head: Database) -> None:
    # 7919 is prime to 300, so that neither ids nor the heap have the order of time; and one without a time.
    head.query("""
        INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, reasoning)
        SELECT timestamp '2026-01-01' + (7919 * g % 300) * interval '1 hour', 'pending', 'run-' || g, 'because'
          FROM generate_series(1, 300) AS g
    """)
    head.query("INSERT INTO retraining_decisions (decision_timestamp, action) VALUES (NULL, 'reject')")
    newest = at("2026-01-01") + timedelta(hours=299)

    answer = rows(head, RECENT_DECISIONS)

    assert [row["decision_timestamp"] for row in answer] == [newest - timedelta(hours=age) for age in range(10)]
    assert {row["reasoning"] for row in answer} == {"because"}
    assert rows(head, "SELECT * FROM v_decision_history")[-1]["decision_timestamp"] is None


def test_latest_monitoring_is_the_newest_row_of_each_of_the_twenty_newest_series(head: Database) -> None:
    head.query("""
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
        SELECT timestamp '2026-01-01' + (7919 * g % 300) * interval '1 hour', 'drift', 'feature ' || g % 30, g
          FROM generate_series(1, 300) AS g
    """)
    head.query("INSERT INTO monitoring_metrics (timestamp, metric_type) VALUES (NULL, 'coverage')")
    newest: dict[str, datetime] = dict(
        head.query("""
            SELECT metric_name, max(timestamp) FROM monitoring_metrics WHERE metric_type = 'drift' GROUP BY 1
             ORDER BY 2 DESC LIMIT 20
        """)
    )

    answer = rows(head, LATEST_MONITORING)

    assert [(row["metric_name"], row["timestamp"]) for row in answer] == list(newest.items())
    everything = rows(head, "SELECT * FROM v_recent_monitoring")
    assert len(everything) == 31
    assert everything[-1]["metric_type"] == "coverage"


def test_the_promotion_timeline_tells_every_version_newest_first(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions
               (mlflow_run_id, model_version, status, f1_score, brier_score, created_at, promoted_at)
        VALUES ('c', '3', 'production', 0.75, 0.25, '2026-03-01', '2026-03-02'),
               ('a', '1', 'archived', 0.5, 0.5, '2026-01-01', '2026-01-02'),
               ('d', '4', 'staging', 0.875, 0.125, '2026-04-01', NULL),
               ('b', '2', 'archived', 0.25, 0.75, '2026-02-01', NULL)
    """)

    answer = rows(head, PROMOTION_TIMELINE)

    assert [row["model_version"] for row in answer] == ["4", "3", "2", "1"]
    assert [row["in_production"] for row in answer] == [False, True, False, False]
    assert [row["f1_delta"] for row in answer] == [None, 0.25, None, None]
    assert [row["brier_delta"] for row in answer] == [None, -0.25, None, None]


# Gates in v_decision_history


@pytest.mark.parametrize(
    "gate_results", [None, "null", "{}", "[]", '[{"passed": false}]', '"passed"', "1", "true", "false"]
)
def test_what_is_no_object_of_gates_says_nothing(head: Database, gate_results: str | None) -> None:
    assert gates_of(head, gate_results) == NOTHING_RAN


@pytest.mark.parametrize("value", [True, PASSED, {"passed": True, "coverage_pct": 45.0, "min_required_pct": 30}])
def test_a_json_true_passes_a_gate(head: Database, value: object) -> None:
    assert gates_of(head, json.dumps({"minimum_coverage": value})) == (1, 0, 0, 5, None, False)


@pytest.mark.parametrize("value", [False, FAILED, {"passed": False, "issues": ["segment a"]}])
def test_a_json_false_fails_a_gate(head: Database, value: object) -> None:
    assert gates_of(head, json.dumps({"minimum_coverage": value})) == (0, 1, 0, 5, "minimum_coverage", False)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 0, 1, "true", "passed", [], [True], {}),
        *({"passed": None}, {"passed": "yes"}, {"passed": "true"}, {"passed": 1}, {"passed": [True]}),
        *({"passed": {"passed": True}}, {"Passed": True}, {"status": "passed"}),
    ],
    ids=json.dumps,
)
def test_a_gate_that_no_json_boolean_decides_is_unknown(head: Database, value: object) -> None:
    assert gates_of(head, json.dumps({"minimum_coverage": value})) == (0, 0, 1, 5, None, False)


def test_an_evaluation_that_stopped_at_the_first_failure_leaves_the_later_gates_not_run(head: Database) -> None:
    results = {"sufficient_samples": PASSED, "minimum_coverage": PASSED, "promotion_cooldown": FAILED}

    assert gates_of(head, json.dumps(results)) == (2, 1, 0, 3, "promotion_cooldown", False)


def test_gates_that_all_passed_so_far_are_not_all_gates_passed(head: Database) -> None:
    assert gates_of(head, json.dumps(dict.fromkeys(GATES[:5], PASSED))) == (5, 0, 0, 1, None, False)


def test_all_six_gates_passed(head: Database) -> None:
    assert gates_of(head, json.dumps(dict.fromkeys(GATES, PASSED))) == (6, 0, 0, 0, None, True)


def test_five_passed_gates_and_an_unknown_one_are_not_all_gates_passed(head: Database) -> None:
    results = dict.fromkeys(GATES, PASSED) | {"calibration_maintained": {"passed": "yes"}}

    assert gates_of(head, json.dumps(results)) == (5, 0, 1, 0, None, False)


def test_six_passed_gates_with_other_names_are_not_all_gates_passed(head: Database) -> None:
    results = {f"gate {number}": PASSED for number in range(6)}

    assert gates_of(head, json.dumps(results)) == (6, 0, 0, 6, None, False)


def test_missing_coverage_data_is_a_failed_gate_of_its_own(head: Database) -> None:
    results = {"coverage_validation": {"passed": False, "error": "no coverage data"}}

    assert gates_of(head, json.dumps(results)) == (0, 1, 0, 6, "coverage_validation", False)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_first_failed_gate_is_the_first_evaluated_not_the_first_in_the_json(
    head: Database, *, backwards: bool
) -> None:
    # JSONB would put promotion_cooldown before sufficient_samples, and "a" before both.
    results = [
        ("a", FAILED),
        ("promotion_cooldown", FAILED),
        ("sufficient_samples", FAILED),
        ("minimum_coverage", True),
    ]

    answer = gates_of(head, json.dumps(dict(results[::-1] if backwards else results)))

    assert answer == (1, 3, 0, 3, "sufficient_samples", False)


@pytest.mark.parametrize(
    ("action", "gate_results", "expected"),
    [
        ("promote", {"sufficient_samples": FAILED}, True),
        ("promote", {"sufficient_samples": PASSED}, False),
        ("promote", {"sufficient_samples": "unknown"}, False),
        ("promote", {}, False),
        ("reject", {"sufficient_samples": FAILED}, False),
        (None, {"sufficient_samples": FAILED}, False),
    ],
)
def test_a_promotion_in_spite_of_a_failed_gate_is_marked(
    head: Database, action: str | None, gate_results: Row, *, expected: bool
) -> None:
    insert(head, "retraining_decisions", {"action": action, "gate_results": Jsonb(gate_results)})

    assert head.value("SELECT promoted_with_failed_gate FROM v_decision_history") is expected


def test_decisions_about_unregistered_or_unnamed_candidates_are_listed_too(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score)
        VALUES ('known', '7', 'staging', 0.5);
        INSERT INTO retraining_decisions (action, candidate_mlflow_run_id)
        VALUES ('promote', 'known'), ('reject', 'unregistered'), ('pending', NULL)
    """)

    assert head.query("""
        SELECT action, candidate_mlflow_run_id, model_version, model_status, f1_score
          FROM v_decision_history ORDER BY id
    """) == [
        ("promote", "known", "7", "staging", 0.5),
        ("reject", "unregistered", None, None, None),
        ("pending", None, None, None, None),
    ]


def test_decisions_of_one_instant_are_told_last_written_first(head: Database) -> None:
    head.query("""
        INSERT INTO retraining_decisions (id, decision_timestamp, action)
        VALUES (2, '2026-01-01', 'pending'), (3, '2026-01-01', 'promote'), (1, '2026-01-01', 'reject')
    """)

    assert [row["id"] for row in rows(head, RECENT_DECISIONS)] == [3, 2, 1]


# The timeline


def test_a_version_is_in_production_from_its_promotion_to_the_next_one(head: Database) -> None:
    # Registered in another order than promoted; '10' sorts before '9' as text; '11' was never promoted.
    head.query("""
        INSERT INTO model_versions
               (mlflow_run_id, model_version, status, f1_score, brier_score, created_at, promoted_at)
        VALUES ('a', '10', 'production', 0.75, 0.125, '2026-01-01', '2026-03-01'),
               ('b', '11', 'archived', 0.1, 0.9, '2026-02-10', NULL),
               ('c', '9', 'archived', 0.5, 0.25, '2026-02-01', '2026-02-01'),
               ('d', '8', 'archived', 0.25, 0.5, '2026-01-15', '2026-01-20')
    """)

    assert timeline(head, "production_until", "previous_version", "f1_delta", "brier_delta") == {
        "8": (at("2026-02-01"), None, None, None),
        "9": (at("2026-03-01"), "8", 0.25, -0.25),
        "10": (None, "9", 0.25, -0.125),
        "11": (None, None, None, None),
    }


def test_versions_promoted_at_one_instant_follow_each_other_by_id(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (id, mlflow_run_id, model_version, promoted_at)
        VALUES (3, 'c', 'third', '2026-01-01'), (1, 'a', 'first', '2026-01-01'), (2, 'b', 'second', '2026-01-01')
    """)

    assert timeline(head, "previous_version", "production_until") == {
        "first": (None, at("2026-01-01")),
        "second": ("first", at("2026-01-01")),
        "third": ("second", None),
    }


def test_a_score_that_is_missing_on_either_side_has_no_delta(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, f1_score, promoted_at)
        VALUES ('a', '1', NULL, '2026-01-01'), ('b', '2', 0.5, '2026-01-02'), ('c', '3', NULL, '2026-01-03')
    """)

    assert set(timeline(head, "f1_delta").values()) == {(None,)}
    assert timeline(head, "previous_version")["3"] == ("2",)


def test_a_version_rolled_back_to_is_in_production_after_the_one_it_replaced(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score, created_at, promoted_at)
        VALUES ('a', '1', 'production', 0.75, '2026-01-01', '2026-03-01'),
               ('b', '2', 'archived', 0.5, '2026-02-01', '2026-02-01')
    """)

    assert timeline(head, "in_production", "previous_version", "f1_delta") == {
        "1": (True, "2", 0.25),
        "2": (False, None, None),
    }


# Recent monitoring


def measure(database: Database, *measurements: Sequence[Any]) -> None:
    """Insert (id, timestamp, metric_type, metric_name, metric_value)."""
    for measurement in measurements:
        database.query(
            "INSERT INTO monitoring_metrics (id, timestamp, metric_type, metric_name, metric_value)"
            " VALUES (%s, %s, %s, %s, %s)",
            measurement,
        )


def test_a_series_tells_its_newest_value_the_one_before_and_the_difference(head: Database) -> None:
    measure(
        head,
        (1, "2026-01-03", "performance", "f1", 0.75),
        (2, "2026-01-01", "performance", "f1", 0.125),
        (3, "2026-01-02", "performance", "f1", 0.5),
        (4, "2026-01-01", "drift", "f1", 9.0),
    )

    assert head.query("SELECT id, metric_value, previous_value, delta FROM v_recent_monitoring") == [
        (1, 0.75, 0.5, 0.25),
        (4, 9.0, None, None),
    ]


def test_of_measurements_of_one_instant_the_last_written_is_the_newest(head: Database) -> None:
    measure(
        head,
        (2, "2026-01-01", "drift", "share", 2.0),
        (3, "2026-01-01", "drift", "share", 4.0),
        (1, "2026-01-01", "drift", "share", 1.0),
    )

    assert head.query("SELECT id, previous_value FROM v_recent_monitoring") == [(3, 2.0)]


def test_measurements_without_type_name_or_value_are_series_too(head: Database) -> None:
    measure(
        head,
        (1, "2026-01-01", None, None, 1.0),
        (2, "2026-01-02", None, None, None),
        (3, "2026-01-03", "drift", None, 1.0),
        (4, "2026-01-04", None, "share", 1.0),
    )

    assert head.query("SELECT id, previous_value, delta FROM v_recent_monitoring") == [
        (4, None, None),
        (3, None, None),
        (2, 1.0, None),
    ]


def test_a_measurement_without_a_time_is_older_than_any_with_one(head: Database) -> None:
    measure(
        head,
        (1, "1999-01-01", "drift", "share", 1.0),
        (2, None, "drift", "share", 2.0),
        (3, None, "coverage", "rate", 3.0),
    )

    assert head.query("SELECT id, previous_value, age IS NULL FROM v_recent_monitoring") == [
        (1, 2.0, False),
        (3, None, True),
    ]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_age_does_not_depend_on_the_session_s_time_zone(head: Database, zone: str) -> None:
    with head.connection.transaction():
        head.query("""
            INSERT INTO monitoring_metrics (timestamp) VALUES ((now() AT TIME ZONE 'UTC') - interval '90 minutes')
        """)
        head.query(f"SET LOCAL TIME ZONE '{zone}'")

        assert head.value("SELECT age FROM v_recent_monitoring") == timedelta(minutes=90)


@pytest.mark.parametrize("timestamp", ["infinity", "-infinity"])
def test_a_time_that_is_not_finite_does_not_stop_the_view(head: Database, timestamp: str) -> None:
    # Before PostgreSQL 17 an infinite timestamp cannot be subtracted.
    measure(head, (1, timestamp, "drift", "share", 1.0), (2, "2026-01-01", "drift", "other", 2.0))

    assert head.query("SELECT id FROM v_recent_monitoring ORDER BY id") == [(1,), (2,)]
    assert head.value("SELECT count(age) FROM v_recent_monitoring") >= 1


def test_a_value_that_is_not_finite_does_not_stop_the_view(head: Database) -> None:
    measure(
        head,
        (1, "2026-01-01", "performance", "brier", math.inf),
        (2, "2026-01-02", "performance", "brier", math.inf),
        (3, "2026-01-02", "performance", "ece", math.nan),
    )

    assert head.query("SELECT id, delta::text FROM v_recent_monitoring") == [(3, None), (2, "NaN")]


# Any rows at all: the views agree with a model of them in plain Python.

some_settings = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    # Each example's rows are rolled back, so that one database serves all of them.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# Few values, so that ties, shared series and repeated candidates are frequent.
times = st.none() | st.sampled_from([at(f"2026-01-0{day} {hour}:00") for day in (1, 2) for hour in ("00", "12")])
scores = st.none() | st.sampled_from([0.0, 0.1, 0.7, 1.0, math.inf, -math.inf, math.nan])
runs = st.sampled_from(["run-1", "run-2", "run-3", "run-4"])
scalars = st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from(["true", "passed", ""])
gate_values = (
    scalars | st.lists(scalars, max_size=2) | st.fixed_dictionaries({}, optional={"passed": scalars, "x": scalars})
)
gate_names = st.sampled_from([*GATES, "coverage_validation", "another"])
gate_documents = st.dictionaries(gate_names, st.booleans() | gate_values, max_size=8)
json_documents = gate_documents | gate_documents | gate_values


def table_of(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    """Rows with ids that do not follow the order of insertion."""
    return st.lists(
        st.fixed_dictionaries({"id": st.integers(1, 1000), **columns}), max_size=12, unique_by=lambda row: row["id"]
    )


model_rows = st.lists(
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


@some_settings
@given(models=model_rows, decisions=decision_rows)
def test_v_decision_history_is_what_the_model_says(head: Database, models: list[Row], decisions: list[Row]) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "model_versions", *models)
        insert(head, "retraining_decisions", *(row | {"gate_results": Jsonb(row["gate_results"])} for row in decisions))

        answer = rows(head, "SELECT * FROM v_decision_history")

    assert comparable(answer) == comparable(views_model.decision_history(decisions, models))


@some_settings
@given(models=model_rows)
def test_v_model_timeline_is_what_the_model_says(head: Database, models: list[Row]) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "model_versions", *models)

        answer = rows(head, "SELECT * FROM v_model_timeline")

    assert comparable(answer) == comparable(views_model.model_timeline(models))


@some_settings
@given(measurements=measurement_rows)
def test_v_recent_monitoring_is_what_the_model_says(head: Database, measurements: list[Row]) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "monitoring_metrics", *measurements)

        answer = rows(head, "SELECT * FROM v_recent_monitoring")
        now = head.value("SELECT CURRENT_TIMESTAMP AT TIME ZONE 'UTC'")

    assert comparable(answer) == comparable(views_model.recent_monitoring(measurements, now))
