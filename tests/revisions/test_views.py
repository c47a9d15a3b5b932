"""The three views at head. tests/revisions/test_baseline_views.py has what only their first definition allowed."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from psycopg.errors import CheckViolation, NotNullViolation, NullValueNotAllowed
from psycopg.types.json import Jsonb, set_json_loads

from support import views_model
from support.database import Database
from support.reporting_model import production_periods
from support.table_rows import insert, rows, storable
from support.view_rows import (
    at,
    catalogue_of,
    decision_rows,
    expectations,
    loads,
    measurement_rows,
    model_rows,
    parsed,
    rolled_back,
)
from support.views_model import GATES, Row

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


PASSED, FAILED = {"passed": True}, {"passed": False}
NOTHING_RAN = (0, 0, 0, 6, None, False)


@pytest.fixture(autouse=True)
def _utc(head: Database) -> None:
    """The literals below are in timezone.utc, whatever the server's zone is."""
    head.query("SET timezone = 'UTC'")


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
    # 7919 is prime to 300, so that neither ids nor the heap have the order of time.
    head.query("""
        INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, reasoning)
        SELECT timestamptz '2026-01-01' + (7919 * g % 300) * interval '1 hour', 'pending', 'run-' || g, 'because'
          FROM generate_series(1, 300) AS g
    """)
    newest = at("2026-01-01") + timedelta(hours=299)

    answer = rows(head, RECENT_DECISIONS)

    assert [row["decision_timestamp"] for row in answer] == [newest - timedelta(hours=age) for age in range(10)]
    assert {row["reasoning"] for row in answer} == {"because"}


def test_latest_monitoring_is_the_newest_row_of_each_of_the_twenty_newest_series(head: Database) -> None:
    head.query("""
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
        SELECT timestamptz '2026-01-01' + (7919 * g % 300) * interval '1 hour', 'drift', 'feature ' || g % 30, g
          FROM generate_series(1, 300) AS g
    """)
    head.query("SELECT mlops_internal.register_series('default', 'coverage', 'never measured')")
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


def test_the_promotion_timeline_has_every_version_newest_first(head: Database) -> None:
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


@pytest.mark.parametrize("gate_results", ["null", "[]", '[{"passed": false}]', '"passed"', "1", "true", "false"])
def test_what_is_no_object_of_gates_is_refused(head: Database, gate_results: str) -> None:
    with pytest.raises(CheckViolation, match="retraining_decisions_gate_results_check"):
        gates_of(head, gate_results)


@pytest.mark.parametrize("gate_results", [None, "{}"])
def test_no_gates_say_nothing(head: Database, gate_results: str | None) -> None:
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
    ],
)
def test_a_promotion_in_spite_of_a_failed_gate_is_marked(
    head: Database, action: str, gate_results: Row, *, expected: bool
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


def test_decisions_of_one_instant_come_last_written_first(head: Database) -> None:
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


def test_a_series_has_its_newest_value_the_one_before_and_the_difference(head: Database) -> None:
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


def test_the_series_of_two_models_are_apart(head: Database) -> None:
    measure(head, (1, "2026-01-01", "drift", "share", 1.0), (2, "2026-01-02", "drift", "share", 2.0))
    head.query("""
        INSERT INTO monitoring_metrics (id, timestamp, metric_type, metric_name, metric_value, model_name)
        VALUES (3, '2026-01-03', 'drift', 'share', 5.0, 'fraud')
    """)

    assert head.query("SELECT model_name, id, previous_value FROM v_recent_monitoring") == [
        ("fraud", 3, None),
        ("default", 2, 1.0),
    ]


def test_a_value_that_could_not_be_computed_is_the_newest_one_all_the_same(head: Database) -> None:
    measure(
        head,
        (1, "2026-01-01", "drift", "share", 1.0),
        (2, "2026-01-02", "drift", "share", None),
        (3, "2026-01-01", "drift", "other", None),
        (4, "2026-01-02", "drift", "other", 2.0),
    )

    assert head.query("SELECT id, metric_value, previous_value, delta, health FROM v_recent_monitoring") == [
        (4, 2.0, None, None, "ok"),
        (2, None, 1.0, None, "failed"),
    ]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("timestamp", value) for value in (None, "infinity", "-infinity")),
        *(("metric_type", None), ("metric_name", None), ("created_at", None), ("model_name", None)),
        *(("metric_value", value) for value in ("NaN", "Infinity", "-Infinity")),
    ],
)
def test_a_measurement_that_answers_no_question_is_refused(head: Database, column: str, value: str | None) -> None:
    row = {"metric_type": "drift", "metric_name": "share", "metric_value": 1.0} | {column: value}

    # A row without a moment does not even find a partition.
    violation = NotNullViolation if value is None and column != "timestamp" else CheckViolation
    # Nor does one without a model find a shard: a distributed table says "NULL in the partition column".
    other, words = (NullValueNotAllowed, "|partition column") if column == "model_name" else (violation, "")
    with pytest.raises((violation, other), match=column + words):
        insert(head, "monitoring_metrics", row)

    assert head.query("TABLE mlops_internal.metric_series") == []


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_age_does_not_depend_on_the_session_s_time_zone(head: Database, zone: str) -> None:
    with head.connection.transaction():
        head.query("""
            INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name)
            VALUES (now() - interval '90 minutes', 'drift', 'share')
        """)
        head.query(f"SET LOCAL TIME ZONE '{zone}'")

        assert head.value("SELECT age FROM v_recent_monitoring") == timedelta(minutes=90)


def test_a_measurement_of_the_future_has_an_age_below_zero_and_is_not_stale(head: Database) -> None:
    with head.connection.transaction():
        head.query("""
            INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name)
            VALUES (now() + interval '400 days', 'drift', 'share');
            UPDATE mlops_internal.metric_series SET expected_interval = '1 hour'
        """)

        assert head.query("SELECT age, stale FROM v_recent_monitoring") == [(timedelta(days=-400), False)]


def test_values_whose_difference_no_double_holds_do_not_stop_the_view(head: Database) -> None:
    measure(
        head,
        (1, "2026-01-01", "performance", "loss", -1.7e308),
        (2, "2026-01-02", "performance", "loss", 1.7e308),
        (3, "2026-01-01", "performance", "gain", 7e307),
        (4, "2026-01-02", "performance", "gain", -7e307),
    )

    assert head.query("SELECT id, delta FROM v_recent_monitoring") == [(4, -1.4e308), (2, None)]


# What is expected of a series


def expect(
    database: Database, *, interval: str | None = None, low: float | None = None, high: float | None = None
) -> None:
    """Of the one series that there is."""
    database.query(
        "UPDATE mlops_internal.metric_series SET expected_interval = %s, lower_threshold = %s, upper_threshold = %s",
        [interval, low, high],
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "health"),
    [
        (0.5, None, None, "ok"),
        (0.5, 0.5, 0.5, "ok"),
        (0.49, 0.5, None, "low"),
        (0.51, None, 0.5, "high"),
        (-1.0, 0.5, 0.6, "low"),
        (None, 0.5, 0.6, "failed"),
    ],
)
def test_health_is_where_the_newest_value_lies_between_the_thresholds(
    head: Database, value: float | None, low: float | None, high: float | None, health: str
) -> None:
    measure(head, (1, "2026-01-02", "drift", "share", value), (2, "2026-01-01", "drift", "share", 0.55))
    expect(head, low=low, high=high)

    assert head.query("SELECT health, lower_threshold, upper_threshold, stale FROM v_recent_monitoring") == [
        (health, low, high, False)
    ]


@pytest.mark.parametrize(
    ("drifted", "health"), [("true", "drifted"), ("false", "ok"), ('"true"', "ok"), ("1", "ok"), ("[true]", "ok")]
)
def test_a_series_has_drifted_if_its_newest_row_says_so(head: Database, drifted: str, health: str) -> None:
    for day, said in ((1, "true"), (2, drifted)):
        row = {"timestamp": at(f"2026-01-0{day}"), "metric_type": "drift", "metric_name": "share", "metric_value": day}
        insert(head, "monitoring_metrics", row | {"metadata": f'{{"drift_detected": {said}}}'})

    assert head.value("SELECT health FROM v_recent_monitoring") == health
    expect(head, high=1.5)
    assert head.value("SELECT health FROM v_recent_monitoring") == "high"


@pytest.mark.parametrize(
    ("interval", "age", "stale"),
    [
        (None, "10 years", False),
        ("1 day", "24:00:00", False),
        ("1 day", "24:00:00.000001", True),
        ("1 month", "30 days", False),
        ("1 month", "31 days", True),
    ],
)
def test_a_series_is_stale_once_its_newest_value_is_older_than_what_is_expected(
    head: Database, interval: str | None, age: str, *, stale: bool
) -> None:
    with head.connection.transaction():
        head.query(
            "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)"
            " VALUES (CURRENT_TIMESTAMP - %s::interval, 'drift', 'share', 7)",
            [age],
        )
        expect(head, interval=interval, high=1)

        assert head.query("SELECT stale, health FROM v_recent_monitoring") == [(stale, "stale" if stale else "high")]


@pytest.mark.parametrize(("interval", "stale"), [(None, False), ("1 day", True)])
def test_a_series_without_measurements_is_missing_and_stale_if_some_were_expected(
    head: Database, interval: str | None, *, stale: bool
) -> None:
    head.query("SELECT mlops_internal.register_series('fraud', 'drift', 'share')")
    expect(head, interval=interval, low=0)

    (row,) = rows(head, "SELECT * FROM v_recent_monitoring")

    assert (row["model_name"], row["metric_type"], row["metric_name"]) == ("fraud", "drift", "share")
    assert (row["stale"], row["health"]) == (stale, "missing")
    assert {row[name] for name in ("id", "timestamp", "metric_value", "previous_value", "delta", "age")} == {None}


# Any rows at all: the views agree with a model of them in plain Python.


@pytest.mark.slow
@rolled_back(150)
@given(versions=model_rows, decisions=decision_rows)
def test_v_decision_history_is_what_the_model_says(head: Database, versions: list[Row], decisions: list[Row]) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "model_versions", *versions)
        insert(head, "retraining_decisions", *map(storable, decisions))

        answer = rows(head, "SELECT * FROM v_decision_history")

    assert answer == views_model.decision_history(decisions, versions)


@pytest.mark.slow
@rolled_back(150)
@given(versions=model_rows, decisions=decision_rows)
def test_v_model_timeline_is_what_the_model_says(head: Database, versions: list[Row], decisions: list[Row]) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "model_versions", *versions)
        insert(head, "retraining_decisions", *map(storable, decisions))

        answer = rows(head, "SELECT * FROM v_model_timeline")

    assert answer == views_model.model_timeline(versions, production_periods(versions, decisions))


def test_a_version_that_came_back_was_promoted_more_than_once(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, status, promoted_at, f1_score)
        VALUES ('a', '1', 'archived', '2026-01-01', 0.1), ('b', '2', 'production', '2026-01-04', 0.2),
               ('c', '3', 'archived', '2026-01-03', 0.4);
        INSERT INTO retraining_decisions (action, candidate_mlflow_run_id, decision_timestamp)
        VALUES ('promote', 'a', '2026-01-01'), ('promote', 'b', '2026-01-02'), ('promote', 'c', '2026-01-03'),
               ('reject', 'c', '2026-01-04'), ('promote', 'b', '2026-01-04')
    """)

    assert timeline(head, "promoted_at", "production_until", "previous_version", "f1_delta") == {
        "1": (at("2026-01-01"), at("2026-01-02"), None, None),
        "3": (at("2026-01-03"), at("2026-01-04"), "2", 0.2),
        "2": (at("2026-01-04"), None, "3", -0.2),
    }


@pytest.mark.slow
@rolled_back(150)
@given(measurements=measurement_rows, expected=expectations)
def test_v_recent_monitoring_is_what_the_model_says(
    head: Database, measurements: list[Row], expected: list[Row]
) -> None:
    set_json_loads(loads, head.connection)
    with head.connection.transaction(force_rollback=True):
        insert(head, "mlops_internal.metric_series", *expected)
        insert(head, "monitoring_metrics", *measurements)

        answer = rows(head, "SELECT * FROM v_recent_monitoring")
        now = head.value("SELECT CURRENT_TIMESTAMP")

    catalogue = catalogue_of(measurements, expected)
    assert answer == views_model.recent_monitoring(parsed(measurements), catalogue, now)
