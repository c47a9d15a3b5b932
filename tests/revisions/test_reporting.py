"""The views and the function of schema reporting, which tests/support/reporting_model.py computes once more."""

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.json import set_json_loads

from support import reporting_model
from support.copies import copy_of_head
from support.database import Database
from support.reporting_model import SERIES
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


@pytest.fixture(scope="module")
def shared(_head_template: Any) -> Iterator[Database]:
    with copy_of_head(_head_template, "mlops_test_reporting") as database:
        set_json_loads(loads, database.connection)
        yield database


@pytest.fixture
def head(shared: Database) -> Iterator[Database]:
    """A database at head; what the test writes is rolled back."""
    with shared.connection.transaction(force_rollback=True):
        yield shared


MEASURED = {"metric_type": "drift", "metric_name": "psi", "metric_value": 0.5}


# Each value with its state


def history(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of metric_history, in the order of the rows."""
    return database.query(f"SELECT {', '.join(columns)} FROM reporting.metric_history ORDER BY id")


@pytest.mark.slow
@rolled_back(100)
@given(measurements=measurement_rows, expected=expectations)
def test_metric_history_is_what_the_model_says(head: Database, measurements: list[Row], expected: list[Row]) -> None:
    # One id may be in several series.
    numbered = [row | {"id": number} for number, row in enumerate(measurements)]
    with head.connection.transaction(force_rollback=True):
        insert(head, "mlops_internal.metric_series", *expected)
        insert(head, "monitoring_metrics", *numbered)

        answer = rows(head, "SELECT * FROM reporting.metric_history ORDER BY id")

    assert answer == reporting_model.metric_history(parsed(numbered), catalogue_of(measurements, expected))


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        *(("0.25", 0.25), ("-3", -3.0), ("0", 0.0), ("1e300", 1e300), ("1e-300", 1e-300)),
        *(("1.8e308", None), ("1e400", None), ("-1e400", None), ("1e-400", 0.0)),
        *(('"0.25"', None), ('"NaN"', None), ("null", None), ("true", None), ("[0.25]", None), ('{"value": 1}', None)),
    ],
)
def test_a_threshold_of_a_row_is_a_number_that_a_double_holds(
    head: Database, threshold: str, expected: float | None
) -> None:
    insert(head, "monitoring_metrics", MEASURED | {"metadata": f'{{"threshold": {threshold}}}'})

    assert history(head, "own_threshold", "state") == [(expected, "ok")]


@pytest.mark.parametrize("metadata", [None, "null", "1e400", '"threshold"', "[]", '[{"threshold": 1}]', "{}"])
def test_metadata_without_keys_says_nothing(head: Database, metadata: str | None) -> None:
    insert(head, "monitoring_metrics", MEASURED | {"metadata": metadata})

    assert history(head, "own_threshold", "low_is_drift", "state") == [(None, None, "ok")]


@pytest.mark.parametrize(
    ("value", "threshold", "drifted", "low", "state"),
    [
        (0.3, 0.2, True, False, "drifted"),
        (0.2, 0.2, True, False, "drifted"),  # a distance drifts from its threshold on
        (0.1, 0.2, False, False, "ok"),
        (0.01, 0.05, True, True, "drifted"),
        (0.05, 0.05, False, True, "ok"),  # and a p-value does below it
        (0.9, 0.05, False, True, "ok"),
        (None, 0.05, True, None, "failed"),
        (0.5, None, True, None, "drifted"),
        (0.5, 0.2, "true", None, "ok"),
        (0.5, 0.2, 1, None, "ok"),
        (0.5, 0.2, None, None, "ok"),
    ],
)
def test_a_row_tells_on_which_side_of_its_threshold_drift_lies(
    head: Database, value: float | None, threshold: float | None, drifted: object, *, low: bool | None, state: str
) -> None:
    metadata = json.dumps({"threshold": threshold, "drift_detected": drifted})
    insert(head, "monitoring_metrics", MEASURED | {"metric_value": value, "metadata": metadata})

    assert history(head, "low_is_drift", "state") == [(low, state)]


def test_a_bound_of_the_catalogue_matters_more_than_drift(head: Database) -> None:
    drifted = '{"drift_detected": true}'
    for value in (None, 0.1, 0.5, 0.9):
        insert(head, "monitoring_metrics", MEASURED | {"metric_value": value, "metadata": drifted})
    head.query("UPDATE mlops_internal.metric_series SET lower_threshold = 0.2, upper_threshold = 0.8")

    assert history(head, "state", "lower_threshold", "upper_threshold") == [
        (state, 0.2, 0.8) for state in ("failed", "low", "drifted", "high")
    ]
    assert head.value("SELECT health FROM v_recent_monitoring") == "high"


# Periods in production


def periods(database: Database, *columns: str) -> list[tuple[Any, ...]]:
    """These columns of production_periods, in the order of time."""
    return database.query(
        f"SELECT {', '.join(columns)} FROM reporting.production_periods ORDER BY model_name, since, mlflow_run_id"
    )


@pytest.mark.slow
@rolled_back(100)
@given(versions=model_rows, decisions=decision_rows)
def test_production_periods_are_what_the_model_says(head: Database, versions: list[Row], decisions: list[Row]) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "model_versions", *versions)
        insert(head, "retraining_decisions", *map(storable, decisions))

        answer = rows(head, "SELECT * FROM reporting.production_periods")

    def in_order(found: Iterable[Row]) -> list[Row]:
        return sorted(found, key=lambda row: (row["mlflow_run_id"], row["since"] is None, row["since"]))

    assert in_order(answer) == in_order(reporting_model.production_periods(versions, decisions))
    serving = {version["mlflow_run_id"] for version in versions if version["status"] == "production"}
    assert sorted(row["mlflow_run_id"] for row in answer if row["in_production"]) == sorted(serving)


def test_a_version_that_came_back_has_two_periods(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, status, promoted_at, f1_score, brier_score)
        VALUES ('a', '1', 'archived', '2026-01-01', 0.5, 0.5), ('b', '2', 'production', '2026-01-04', 0.25, 0.25),
               ('c', '3', 'archived', '2026-01-03', 0.75, NULL);
        INSERT INTO retraining_decisions (action, candidate_mlflow_run_id, decision_timestamp, is_rollback)
        VALUES ('promote', 'a', '2026-01-01', false), ('promote', 'b', '2026-01-02', false),
               ('promote', 'c', '2026-01-03', false), ('reject', 'c', '2026-01-04', true),
               ('promote', 'b', '2026-01-04', true)
    """)

    columns = ("model_version", "since", "until", "in_production", "returned", "previous_version", "f1_delta")
    assert periods(head, *columns, "brier_delta") == [
        ("1", at("2026-01-01"), at("2026-01-02"), False, False, None, None, None),
        ("2", at("2026-01-02"), at("2026-01-03"), False, False, "1", -0.25, -0.25),
        ("3", at("2026-01-03"), at("2026-01-04"), False, False, "2", 0.5, None),
        ("2", at("2026-01-04"), None, True, True, "3", -0.5, None),
    ]


def test_promotions_of_the_version_in_production_begin_no_period(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, status, promoted_at, model_name)
        VALUES ('a', '1', 'production', '2026-01-05', 'churn'), ('b', '1', 'archived', '2026-01-02', 'fraud');
        INSERT INTO retraining_decisions (action, candidate_mlflow_run_id, decision_timestamp, model_name)
        VALUES ('promote', 'a', '2026-01-01', 'churn'), ('promote', 'a', '2026-01-03', 'churn'),
               ('promote', 'a', '2026-01-09', 'churn'), ('promote', 'a', '2025-01-01', 'of no version')
    """)

    assert periods(head, "model_name", "since", "until", "in_production", "returned") == [
        ("churn", at("2026-01-01"), None, True, False),
        ("fraud", at("2026-01-02"), None, False, False),  # it was taken out, and nobody wrote down when
    ]


@pytest.mark.parametrize(
    ("promoted_at", "decided_at", "since"),
    [
        (None, None, None),
        ("2026-01-01", None, None),
        (None, "2026-01-03", "2026-01-03"),
        ("2026-01-01", "2026-01-03", "2026-01-03"),
    ],
)
def test_a_version_that_was_put_into_production_by_hand_is_there_now(
    head: Database, promoted_at: str | None, decided_at: str | None, since: str | None
) -> None:
    """Its status says so, although the moment of its promotion is missing or an old one."""
    head.query(
        "INSERT INTO model_versions (mlflow_run_id, model_version, status, promoted_at)"
        " VALUES ('by hand', '1', 'production', %s), ('other', '2', 'archived', '2026-01-02')",
        [promoted_at],
    )
    if decided_at:
        head.query(
            "INSERT INTO retraining_decisions (action, candidate_mlflow_run_id, decision_timestamp)"
            " VALUES ('promote', 'by hand', %s)",
            [decided_at],
        )
    began = since and at(since)

    *_, other, latest = periods(head, "model_version", "since", "until", "in_production", "returned")

    assert latest == ("1", began, None, True, promoted_at is not None)
    assert other == ("2", at("2026-01-02"), began, False, False)
    assert head.query("""
        SELECT model_version, in_production, promoted_at, production_until FROM v_model_timeline ORDER BY model_version
    """) == [("1", True, began, None), ("2", False, at("2026-01-02"), began)]


# Gates


def gates_of(database: Database, results: object) -> list[tuple[Any, ...]]:
    """(position, gate, result) of a decision with these results."""
    database.query(
        "INSERT INTO retraining_decisions (action, gate_results) VALUES ('reject', %s)",
        [None if results is None else json.dumps(results)],
    )
    return database.query("SELECT position, gate, result FROM reporting.decision_gates ORDER BY position")


@pytest.mark.slow
@rolled_back(100)
@given(versions=model_rows, decisions=decision_rows)
def test_decision_gates_are_what_the_model_says(head: Database, versions: list[Row], decisions: list[Row]) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "model_versions", *versions)
        insert(head, "retraining_decisions", *map(storable, decisions))

        answer = rows(head, "SELECT * FROM reporting.decision_gates ORDER BY id, position")

    assert answer == reporting_model.decision_gates(decisions, versions)


def test_gates_come_in_the_order_of_the_evaluation_and_others_after_them(head: Database) -> None:
    results = {"b": True, "calibration_maintained": {"passed": False}, "a": {"passed": True}, "minimum_coverage": True}

    assert gates_of(head, results) == [
        (1, "sufficient_samples", "not run"),
        (2, "minimum_coverage", "passed"),
        (3, "promotion_cooldown", "not run"),
        (4, "metric_improvement", "not run"),
        (5, "calibration_maintained", "failed"),
        (6, "no_segment_regression", "not run"),
        (7, "a", "passed"),
        (8, "b", "passed"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (True, "passed"),
            (False, "failed"),
            ({"passed": True, "share": 0.5}, "passed"),
            ({"passed": False}, "failed"),
        ),
        *((value, "unknown") for value in (None, 0, 1, "true", "passed", [], [True], ["passed"], {})),
        *(({"passed": value}, "unknown") for value in (None, 1, "true", [True], {"passed": True})),
    ],
    ids=json.dumps,
)
def test_only_a_json_boolean_says_whether_a_gate_passed(head: Database, value: object, expected: str) -> None:
    (first, *others) = gates_of(head, {"sufficient_samples": value})

    assert first == (1, "sufficient_samples", expected)
    assert {result for _, _, result in others} == {"not run"}
    assert head.value("SELECT details FROM reporting.decision_gates WHERE position = 1") == value


@pytest.mark.parametrize("results", [None, {}])
def test_a_decision_without_gates_has_six_that_did_not_run(head: Database, results: object) -> None:
    assert gates_of(head, results) == [(number, gate, "not run") for number, gate in enumerate(GATES, start=1)]


# Days

# No zone's midnight but UTC's is at 00:00 there, and summer time begins in America on the 8th, in Europe on the 29th.
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Kiritimati", "America/St_Johns")
MIDNIGHTS = [at(f"2026-03-{day:02}") for day in (7, 8, 9, 28, 29, 30)]
MICROSECOND = timedelta(microseconds=1)
around = st.sampled_from(
    [moment + shift for moment in MIDNIGHTS for shift in (-MICROSECOND, timedelta(), MICROSECOND, timedelta(hours=13))]
)
EVER = {at("0001-01-01"): "-infinity", at("9999-12-31"): "infinity"}
bounds = around | st.sampled_from(list(EVER))
daily_rows = st.lists(
    st.fixed_dictionaries(
        {
            "model_name": st.sampled_from(["default", "fraud"]),
            "metric_type": st.just("drift"),
            "metric_name": st.sampled_from(["a", "b"]),
            "timestamp": around,
            "metric_value": st.none()
            | st.floats(-1, 1)
            | st.sampled_from([1.7e308, -1.7e308, 1e140, -1e140, 9.99e139, -9.99e139, 5e-324]),
        }
    ),
    max_size=15,
)


def daily(database: Database, since: str, until: str) -> list[Row]:
    return rows(
        database,
        f"SELECT * FROM reporting.metric_daily('{since}', '{until}')"
        " ORDER BY day, model_name, metric_type, metric_name",
    )


def close(expected: float | None, values: Row) -> object:
    """The mean as PostgreSQL adds it up."""
    largest = max(abs(values["minimum"] or 0), abs(values["maximum"] or 0))
    return expected if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-12 * largest)


@pytest.mark.slow
@rolled_back(100)
@given(measurements=daily_rows, since=bounds, until=bounds, zone=st.sampled_from(ZONES))
def test_metric_daily_is_what_the_model_says(
    head: Database, measurements: list[Row], since: datetime, until: datetime, zone: str
) -> None:
    with head.connection.transaction(force_rollback=True):
        insert(head, "monitoring_metrics", *measurements)
        head.query(f"SET LOCAL TIME ZONE '{zone}'")

        answer = daily(head, *(EVER.get(bound) or bound.isoformat() for bound in (since, until)))

    expected = reporting_model.metric_daily(measurements, since, until)
    assert answer == [row | {"mean": close(row["mean"], row)} for row in expected]


def test_days_are_whole_and_those_of_utc(head: Database) -> None:
    for moment, value in (("07 23:59:59.999999", 1.0), ("08 00:00", 2.0), ("08 23:59", 6.0), ("09 00:00", 9.0)):
        insert(head, "monitoring_metrics", MEASURED | {"timestamp": at(f"2026-03-{moment}"), "metric_value": value})
    insert(head, "monitoring_metrics", MEASURED | {"timestamp": at("2026-03-08 12:00"), "metric_value": None})
    head.query("SET timezone = 'Asia/Tokyo'")
    summary = ("minimum", "mean", "maximum", "count", "failed")

    def days(since: str, until: str) -> dict[date, tuple[Any, ...]]:
        return {row["day"]: tuple(row[column] for column in summary) for row in daily(head, since, until)}

    only = {date(2026, 3, 8): (2.0, 4.0, 6.0, 2, 1)}
    assert days("2026-03-08 00:00Z", "2026-03-09 00:00Z") == only
    assert days("2026-03-08 22:00Z", "2026-03-08 22:00:00.000001Z") == only
    assert days("2026-03-08 22:00Z", "2026-03-08 22:00Z") == days("2026-03-08 23:00Z", "2026-03-08 01:00Z") == {}
    assert list(days("2026-03-07 23:59Z", "2026-03-09 00:00:00.000001Z")) == [date(2026, 3, day) for day in (7, 8, 9)]
    assert len(days("-infinity", "infinity")) == 3


def test_a_day_without_any_value_counts_what_failed(head: Database) -> None:
    for hour in (1, 2):
        insert(
            head,
            "monitoring_metrics",
            MEASURED | {"timestamp": at(f"2026-03-08 0{hour}:00"), "metric_value": None},
        )

    (row,) = daily(head, "2026-03-08Z", "2026-03-09Z")

    assert row == dict(zip(SERIES, ("default", "drift", "psi"), strict=True)) | {
        "day": date(2026, 3, 8), "minimum": None, "mean": None, "maximum": None, "count": 0, "failed": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("largest", "mean"), [(1.7e308, None), (-1.7e308, None), (1e140, None), (9e139, 6e139)])
def test_a_mean_that_postgresql_cannot_compute_is_null(head: Database, largest: float, mean: float | None) -> None:
    for value in (largest, largest, 0.0):
        insert(head, "monitoring_metrics", MEASURED | {"timestamp": at("2026-03-08"), "metric_value": value})

    (row,) = daily(head, "2026-03-08Z", "2026-03-09Z")

    assert row["mean"] == pytest.approx(mean) if mean else row["mean"] is None
    assert {row["minimum"], row["maximum"]} == {largest, 0.0}


def test_the_second_bound_is_now_by_default(head: Database) -> None:
    with head.connection.transaction():
        head.query("""
            INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name)
            VALUES (now() - interval '1 minute', 'drift', 'psi'), (now() + interval '3 days', 'drift', 'psi')
        """)

        answer = head.query("SELECT day FROM reporting.metric_daily(now() - interval '1 minute')")

        assert answer == head.query("SELECT (timezone('UTC', now() - interval '1 minute'))::date")


# Exact matches, where pg_catalog has count("any") and no < for numbers of two types.
OF_OTHERS = """
    CREATE FUNCTION public.others(double precision, numeric) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN RAISE 'run as %', current_user; END $$;
    CREATE OPERATOR public.< (LEFTARG = double precision, RIGHTARG = numeric, FUNCTION = public.others);
    CREATE FUNCTION public.others(bigint, double precision) RETURNS bigint LANGUAGE plpgsql
        AS $$ BEGIN RAISE 'run as %', current_user; END $$;
    CREATE AGGREGATE public.count(double precision) (SFUNC = public.others, STYPE = bigint);
    SET LOCAL search_path = public
"""


def test_metric_daily_runs_nothing_that_others_create_in_public(head: Database) -> None:
    insert(head, "monitoring_metrics", MEASURED | {"timestamp": at("2026-03-08")})
    head.query(OF_OTHERS)

    (row,) = daily(head, "2026-03-08Z", "2026-03-09Z")

    assert (row["mean"], row["count"], row["failed"]) == (0.5, 1, 0)
