import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from operator import itemgetter
from typing import Any

import pytest

from mlops_db.adapters.evidently import report_rows
from mlops_db.demo.measurements import bounds, measurements
from mlops_db.demo.story import MODELS, Candidate, Story
from support.copies import copy_of_head
from support.database import SCRIPTS, TIMEOUT_S, Database
from support.process import assert_failed
from support.sessions import another_session, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

DAYS = 90
NOW = datetime(2026, 6, 15, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def demo(_head_template: Any) -> Iterator[Database]:
    """A database at head that the demo has filled; the tests only read it."""
    with copy_of_head(_head_template, "mlops_test_demo") as database:
        done = database.run("mlops-db", "demo", "--days", str(DAYS))
        assert done.returncode == 0, done.stderr
        said = [done.stdout, done.stderr]
        database.query("CREATE TABLE said AS SELECT %s::text AS text, %s::text AS progress", said)
        yield database


def test_it_says_what_to_look_at_and_each_query_works_as_it_is_printed(demo: Database) -> None:
    (output,) = demo.query("SELECT text FROM said")[0]
    summary, *commands = re.findall(r"^[^#\n].*", output, re.MULTILINE)
    assert re.search(rf"{DAYS} days of 3 models, in .+: 36 versions, 38 decisions, 3\d,\d{{3}} metrics", summary)
    assert commands[:2] == ["mlops-db health", "mlops-db report"]
    queries = commands[2:]
    assert len(queries) == 2
    done = demo.run("bash", "-c", "\n".join(queries), PATH=f"{SCRIPTS}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [int(count) for count in re.findall(r"^\((\d+) rows\)$", done.stdout, re.MULTILINE)]
    assert len(rows) == 2
    assert min(rows) > 10
    assert max(len(digits) for digits in re.findall(r"\.(\d+)", done.stdout)) == 4


def test_progress_is_two_lines(demo: Database) -> None:
    (progress,) = demo.query("SELECT progress FROM said")[0]
    assert re.fullmatch(
        rf"Writing {DAYS} days \.\.\. [\d.]+ s\nMoving .* partitions of their months \.\.\. [\d.]+ s\n", progress
    )


def test_every_model_has_one_version_in_production_and_one_promotion_was_rolled_back(demo: Database) -> None:
    assert demo.query(
        "SELECT model_name, count(*) FROM v_model_timeline WHERE in_production GROUP BY 1 ORDER BY 1"
    ) == [(name, 1) for name in ("churn", "fraud", "lead_scoring")]
    assert demo.query(
        "SELECT model_name, model_version, decided_by FROM v_decision_history WHERE action = 'reject' AND is_rollback"
    ) == [("churn", "5", "ada@example.com")]
    actions = dict(demo.query("SELECT action, count(*) FROM retraining_decisions GROUP BY action"))
    assert set(actions) == {"promote", "reject", "pending"}


def test_decisions_show_each_gate_and_the_callers_infinity(demo: Database) -> None:
    failed = {gate for (gate,) in demo.query("SELECT DISTINCT first_failed_gate FROM v_decision_history")}
    assert failed == {
        "sufficient_samples", "minimum_coverage", "promotion_cooldown", "metric_improvement", "calibration_maintained",
        "no_segment_regression", "coverage_validation", None,
    }  # fmt: skip
    changes = demo.query("SELECT gate_results #>> '{calibration_maintained,brier_change}' FROM retraining_decisions")
    assert ("Infinity",) in changes


def test_all_that_happened_lies_in_the_days_before_now(demo: Database) -> None:
    for column in (
        "created_at FROM model_versions",
        "promoted_at FROM model_versions WHERE promoted_at IS NOT NULL",
        "decision_timestamp FROM retraining_decisions",
        "created_at FROM retraining_decisions",
        "timestamp FROM monitoring_metrics",
    ):
        moments = [moment for (moment,) in demo.query(f"SELECT {column}")]
        assert max(moments) <= datetime.now(timezone.utc), column
        assert min(moments) > datetime.now(timezone.utc) - timedelta(days=DAYS + 1), column
        assert max(moments) - min(moments) > timedelta(days=DAYS / 2), column


def test_monitoring_shows_what_is_wrong(demo: Database) -> None:
    health = {
        f"{model}/{name}": health
        for model, name, health in demo.query("SELECT model_name, metric_name, health FROM v_recent_monitoring")
    }
    assert len(health) == 75
    assert health["lead_scoring/coverage_rate"] == "stale"
    assert health["churn/drift_score.days_since_login[method=psi]"] == "failed"
    assert health["churn/drift_score.tenure[method=psi]"] == "ok"
    assert health["lead_scoring/drift_score.source[method=chisquare]"] == "low"
    assert health["lead_scoring/dataset_drift_detected[cat_method=chisquare,num_method=ks]"] == "high"
    assert demo.value(
        "SELECT metadata ->> 'error' FROM v_recent_monitoring WHERE metric_name ~ '^drift_score.days_since_login'"
    ).startswith("Evidently")
    incident = demo.query(
        "SELECT max(metric_value) FROM monitoring_metrics WHERE model_name = 'fraud' AND"
        " metric_name = 'dataset_drift_detected[method=psi]'"
    )
    assert incident == [(1.0,)]


def evidently_report(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The report of Evidently 0.7 that has the values of these rows."""
    metrics: list[dict[str, Any]] = []
    for row in rows:
        details, value = row["metadata"], row["metric_value"]
        config = {
            {"feature": "column", "stat_test": "method"}.get(key, key): detail
            for key, detail in details.items()
            if key not in ("drift_detected", "error", "at_least")
        }
        if "column" in config:
            kind, value = "ValueDrift", math.nan if value is None else value
        elif row["metric_name"].startswith("number_of_drifted_columns"):
            kind, value = "DriftedColumnsCount", details.get("at_least") or {"count": value, "share": value / 5}
        else:
            continue
        metrics.append({"config": {"type": f"evidently:metric_v2:{kind}", **config}, "value": value})
    return {"metrics": metrics}


def test_drift_is_stored_as_the_adapter_of_evidently_stores_it() -> None:
    reports: dict[tuple[str, datetime], list[dict[str, Any]]] = {}
    for row in measurements(Story(now=NOW, days=DAYS, seed=1)):
        if row["metric_type"] == "drift":
            reports.setdefault((row["model_name"], row["timestamp"]), []).append(row)
    found = set()
    for (model, at), rows in reports.items():
        converted = report_rows(evidently_report(rows), model_name=model, timestamp=at)
        assert sorted(rows, key=itemgetter("metric_name")) == sorted(converted, key=itemgetter("metric_name"))
        found.update(converted.bounds)
    assert found == {each for model in MODELS for each in bounds(model) if each.metric_type == "drift"}


def test_the_rows_of_each_month_lie_in_its_partition(demo: Database) -> None:
    assert demo.value("SELECT count(*) FROM mlops_internal.monitoring_metrics_earlier") == 0
    assert demo.value("SELECT count(DISTINCT tableoid) FROM monitoring_metrics") >= 3


def test_a_database_with_rows_is_left_alone(head: Database) -> None:
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run', '1')")
    assert_failed(head.run("mlops-db", "demo"), "is not empty; nothing was changed", "MLOPS_DB_NAME")
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 0


def test_production_is_left_alone(head: Database) -> None:
    assert_failed(head.run("mlops-db", "demo", MLOPS_ENV="production"), "MLOPS_ENV is production")
    assert head.value("SELECT count(*) FROM model_versions") == 0


def test_a_database_without_tables_is_told_what_to_do(empty: Database) -> None:
    assert_failed(empty.run("mlops-db", "demo"), "has no tables yet", "alembic upgrade head")


@pytest.mark.parametrize("days", ["0", "89", "731", "many"])
def test_the_days_are_limited(head: Database, days: str) -> None:
    done = head.run("mlops-db", "demo", "--days", days)
    assert done.returncode == 64
    assert "--days" in done.stderr


def test_the_same_seed_makes_the_same_story() -> None:
    first, same, other = (
        json.dumps([story.events, list(measurements(story))], default=vars_or_text)
        for story in (Story(now=NOW, days=DAYS, seed=seed) for seed in (7, 7, 8))
    )
    assert first == same
    assert first != other


def vars_or_text(value: object) -> object:
    return str(value) if isinstance(value, datetime) else vars(value)


def test_drift_ends_with_a_retraining_and_the_gates_stop_at_the_first_failure() -> None:
    story = Story(now=NOW, days=365, seed=1)
    detected = [
        row["timestamp"]
        for row in measurements(story)
        if row["model_name"] == "fraud"
        and row["metric_name"].startswith("dataset_drift_detected")
        and row["metric_value"] == 1
    ]
    (retraining,) = [
        event for event in story.events if isinstance(event, Candidate) and event.reasoning.startswith("Retrained")
    ]
    assert retraining.action == "promote"
    assert timedelta() <= retraining.at - max(detected) < timedelta(days=1)
    assert retraining.at - min(detected) > timedelta(days=14)
    for event in story.events:
        if isinstance(event, Candidate) and event.gates:
            results = [gate["passed"] for gate in event.gates.values()]
            assert all(results[:-1])
            assert results[-1] is (event.action != "reject")
    assert {model.name for model in MODELS} == {event.model_name for event in story.events}


def test_an_interrupted_demo_says_that_the_database_is_filled_in_part(undistributed_head: Database) -> None:
    head = undistributed_head
    process = subprocess.Popen(
        [SCRIPTS / "mlops-db", "demo", "--days", "730"],
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    wait_until(lambda: head.value("SELECT count(*) > 10 FROM model_versions"), "the first versions")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)

    assert (process.returncode, out) == (130, "")
    *_, message, hint = err.splitlines()
    assert message == f"interrupted; {head.settings.target} is filled in part"
    assert hint == "hint: `alembic downgrade base` and `alembic upgrade head` empty it."
    assert head.run("alembic", "downgrade", "base").returncode == 0
    assert head.run("alembic", "upgrade", "head").returncode == 0
    assert head.value("SELECT count(*) FROM model_versions") == 0


def test_interrupted_before_it_writes_it_says_nothing_of_that(head: Database) -> None:
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('real', '1')")
    with another_session(head, "somebody", "LOCK TABLE model_versions IN ACCESS EXCLUSIVE MODE"):
        process = subprocess.Popen(
            [SCRIPTS / "mlops-db", "demo"],
            env=head.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'model_versions'::regclass AND NOT granted)"
        wait_until(lambda: head.value(waits), "the look whether it is empty")
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)

    assert (process.returncode, out, err) == (130, "", "")
