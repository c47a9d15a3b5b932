"""uv run --isolated --extra airflow pytest -n 0 -m adapters tests/adapters/test_airflow.py."""

import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_db.adapters.airflow import logical_date
from mlops_db.errors import AdapterError
from support.database import Database, clean_environment, run_command

pytestmark = pytest.mark.adapters
MIDNIGHT = datetime(2026, 3, 1, tzinfo=timezone.utc)
# A task that runs twice, as after a retry, and finds its date by either way.
DAG = """
import pendulum
from airflow.sdk import dag, task
from mlops_db.adapters.airflow import logical_date
from mlops_db.storage.db_manager import DatabaseManager

@dag(schedule="@daily", start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False)
def monitoring():
    @task
    def measure(**context):
        assert logical_date() == logical_date(context)
        assert type(logical_date()).__module__ == "datetime"
        rows = [{"metric_type": "coverage", "metric_name": "rate", "metric_value": 0.9}]
        with DatabaseManager() as db:
            for _ in range(2):
                db.monitoring.log_many(rows, replace=logical_date(context))
    measure()

dag = monitoring()
if __name__ == "__main__":
    run = dag.test(logical_date=pendulum.datetime(2026, 3, 1, 1, tz="Europe/Berlin"))
    assert run.state == "success", run.state
"""


def test_a_task_that_runs_twice_stores_its_values_once(head: Database, tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    file = tmp_path / "dags" / "monitoring.py"
    file.write_text(DAG, encoding="utf-8")
    environment = head.environment | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for command in (["airflow", "db", "migrate"], [sys.executable, str(file)]):
        done = run_command(*command, environment=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert head.query("SELECT timestamp, metric_value FROM monitoring_metrics") == [(MIDNIGHT, 0.9)]


def test_without_a_task_there_is_no_context(tmp_path: Path) -> None:
    script = "from mlops_db.adapters.airflow import logical_date; logical_date()"
    done = run_command(
        sys.executable, "-c", script, environment=clean_environment(AIRFLOW_HOME=str(tmp_path)), cwd=tmp_path
    )
    assert "mlops_db.errors.AdapterError: no task of Airflow runs here" in done.stderr


@pytest.mark.parametrize(
    "context",
    [
        {"logical_date": MIDNIGHT, "dag_run": SimpleNamespace(run_after=None)},
        {"logical_date": None, "dag_run": SimpleNamespace(logical_date=None, run_after=MIDNIGHT)},
        {"dag_run": SimpleNamespace(run_after=MIDNIGHT)},
        {"execution_date": MIDNIGHT},
    ],
)
def test_the_keys_of_airflow_2_and_3_are_known(context: Mapping[str, Any]) -> None:
    assert logical_date(context) == MIDNIGHT


@pytest.mark.parametrize("context", [{}, {"logical_date": datetime(2026, 3, 1)}, {"dag_run": None}])  # noqa: DTZ001
def test_a_context_without_a_date_is_refused(context: Mapping[str, Any]) -> None:
    with pytest.raises(AdapterError, match="neither a logical date nor a DAG run"):
        logical_date(context)
