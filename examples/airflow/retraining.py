"""A DAG that retrains every week: train, compare with the version in production, promote or reject.

Each task can be retried. The run that the candidate was compared with goes from task to task, so that a decision that
is carried out late cannot replace a version that nobody compared it with. Only the first version, which is compared
with none, replaces any.
"""

from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException

from mlops_db import get_db_manager
from mlops_db.adapters.airflow import logical_date

MODEL = "churn"
LEAST_SAMPLES = 200
LEAST_IMPROVEMENT_PCT = 2.0
COOLDOWN = timedelta(days=3)


def fit(until: datetime) -> dict[str, Any]:
    """Yours: train with the data before that moment; the same moment gives the same run."""
    return {"run_id": f"{MODEL}-{until:%Y%m%dT%H%M}", "samples": 900, "f1_score": 0.81, "brier_score": 0.12}


@task
def train() -> dict[str, Any]:
    """Train a candidate and register it."""
    moment = logical_date()
    candidate = fit(moment)
    get_db_manager().models.register(
        candidate["run_id"],
        f"{moment:%Y.%m.%d}",
        model_name=MODEL,
        f1_score=candidate["f1_score"],
        brier_score=candidate["brier_score"],
    )
    return candidate


@task
def evaluate(candidate: dict[str, Any]) -> dict[str, Any]:
    """Compare the candidate with the version in production."""
    production = get_db_manager().models.production(MODEL)
    if production is None:
        return {"compared_with": None, "gates": {}}
    if production.mlflow_run_id == candidate["run_id"]:
        raise AirflowSkipException("this candidate is in production already")
    improvement = 100 * (candidate["f1_score"] / (production.f1_score or 1e-9) - 1)
    change = candidate["brier_score"] - (1.0 if production.brier_score is None else production.brier_score)
    rest = None if production.promoted_at is None else datetime.now(timezone.utc) - production.promoted_at
    gates = {
        "sufficient_samples": {
            "passed": candidate["samples"] >= LEAST_SAMPLES,
            "num_samples": candidate["samples"],
            "min_required": LEAST_SAMPLES,
        },
        "promotion_cooldown": {"passed": rest is None or rest >= COOLDOWN, "cooldown_days": COOLDOWN.days},
        "metric_improvement": {
            "passed": improvement >= LEAST_IMPROVEMENT_PCT,
            "f1_improvement_pct": improvement,
            "threshold": LEAST_IMPROVEMENT_PCT,
        },
        "calibration_maintained": {"passed": change <= 0, "brier_change": change, "threshold": 0},
    }
    return {"compared_with": production.mlflow_run_id, "gates": gates}


@task
def decide(candidate: dict[str, Any], evaluation: dict[str, Any]) -> None:
    """Promote the candidate if it passed all gates, else reject it."""
    models = get_db_manager().models
    gates = evaluation["gates"]
    failed = [name for name, gate in gates.items() if not gate["passed"]]
    if failed:
        reasoning = f"failed: {', '.join(failed)}"
        models.reject(candidate["run_id"], gates=gates, reasoning=reasoning, decided_at=logical_date())
    else:
        reasoning = "all gates passed" if gates else "the first version"
        models.promote(candidate["run_id"], instead_of=evaluation["compared_with"], gates=gates, reasoning=reasoning)


@dag(
    schedule="@weekly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5), "execution_timeout": timedelta(hours=2)},
)
def retraining() -> None:
    """Three tasks, one after the other."""
    candidate = train()
    decide(candidate, evaluate(candidate))


retraining()
