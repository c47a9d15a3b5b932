"""uv run --isolated --extra airflow pytest -n 0 -m adapters tests/adapters/test_airflow.py."""

import os
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_db.adapters.airflow import logical_date
from mlops_db.errors import AdapterError
from support.database import Database, clean_environment, run_command
from support.examples import example

pytestmark = pytest.mark.adapters
MIDNIGHT = datetime(2026, 3, 1, tzinfo=timezone.utc)
# A task that stores twice, as after a retry, and finds its date by either way; and the DAGs of the pages.
TWICE = """
from datetime import datetime, timezone
from airflow.sdk import dag, task
from mlops_db import get_db_manager
from mlops_db.adapters.airflow import logical_date

@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False)
def twice():
    @task
    def measure(**context):
        assert logical_date() == logical_date(context)
        assert type(logical_date()) is datetime
        for _ in range(2):
            rows = [{"metric_type": "twice", "metric_name": "twice", "metric_value": 0.9}]
            get_db_manager().monitoring.log_many(rows, replace=logical_date(context))
    measure()

twice()
"""
RUN = """
import runpy
import sys
from datetime import datetime
moment, *files = sys.argv[1:]
for file in files:
    dag = runpy.run_path(file)[file.rpartition("/")[2].removesuffix(".py")]()
    run = dag.test(logical_date=datetime.fromisoformat(moment))
    assert run.state == "success", (file, run.state)
"""


def test_a_rerun_replaces_what_it_stored_and_the_dags_of_the_pages_run(head: Database, tmp_path: Path) -> None:
    dags = {
        "twice": TWICE,
        "monitoring": example("docs/storing.md", "airflow"),
        "keep_metrics": example("docs/operating.md", "airflow"),
    }
    environment = head.environment | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    folder = tmp_path / "dags"
    folder.mkdir()
    for dag_id, source in dags.items():
        (folder / f"{dag_id}.py").write_text(source, encoding="utf-8")
    moment = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    in_kolkata = moment.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    head.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, timestamp) VALUES ('old', 'old', '2020-01-01')"
    )
    for command in (
        ["airflow", "db", "migrate"],
        [sys.executable, "-c", RUN, in_kolkata, *(str(folder / f"{dag_id}.py") for dag_id in dags)],
    ):
        done = run_command(*command, environment=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert head.query("SELECT metric_name, timestamp, metric_value FROM monitoring_metrics ORDER BY 1") == [
        ("coverage_rate", moment, 0.93),
        ("twice", moment, 0.9),
    ]


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
