"""A DAG that measures every hour: coverage, and the drift of each feature in a mapped task.

A retry, and a run that is cleared, replace what they stored. A value that cannot be computed is stored as failed, with
its reason, and the task fails.
"""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from airflow.sdk import dag, task

from mlops_db import get_db_manager
from mlops_db.adapters.airflow import logical_date

MODEL = "churn"
FEATURES = ["age", "income", "plan"]


def measure_coverage(until: datetime) -> float:
    """Yours: the share of predictions of the hour before that the model has covered."""
    return 0.93


def measure_drift(feature: str, until: datetime) -> float:
    """Yours: how far the values of the hour before are from those of the training."""
    return {"age": 0.03, "income": 0.12, "plan": 0.07}[feature]


def store(metric_type: str, metric_name: str, measure: Callable[[datetime], float]) -> None:
    """Measure and store, about the date of this run."""
    moment = logical_date()
    monitoring = get_db_manager().monitoring
    row: dict[str, object] = {"metric_type": metric_type, "metric_name": metric_name, "model_name": MODEL}
    try:
        row["metric_value"] = measure(moment)
    except Exception as error:
        # As log_failure() does, but so that the next try replaces it.
        monitoring.log_many([row | {"metric_value": None, "metadata": {"error": repr(error)}}], replace=moment)
        raise
    monitoring.log_many([row], replace=moment)


@task
def coverage() -> None:
    """One value an hour."""
    store("coverage", "coverage_rate", measure_coverage)


@task
def drift(feature: str) -> None:
    """Mapped: a task and a series for each feature."""
    store("drift", f"drift_score.{feature}", lambda until: measure_drift(feature, until))


@dag(
    schedule="@hourly",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=2), "execution_timeout": timedelta(minutes=10)},
)
def monitoring() -> None:
    """Two kinds of metrics, which do not wait for each other."""
    coverage()
    drift.expand(feature=FEATURES)


monitoring()
