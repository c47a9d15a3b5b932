"""uv run --isolated --extra airflow pytest -n 0 -m adapters tests/adapters/test_airflow.py."""

import os
import re
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_db.adapters.airflow import logical_date
from mlops_db.errors import AdapterError
from mlops_db.storage.mapped_moment import MappedMoment
from support.database import LONG_TIMEOUT_S, ROOT, Database, clean_environment, run_command
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
# Mapped tasks of one date that store in one series, some of them twice because their first try fails; and a task that
# is not mapped.
MAPPED = """
from datetime import datetime, timedelta, timezone
from airflow.sdk import dag, task, task_group
from mlops_db import get_db_manager
from mlops_db.adapters.airflow import logical_date

def store(name, value, moment):
    rows = [{"metric_type": "mapped", "metric_name": name, "metric_value": value, "metadata": {"of": value}}]
    get_db_manager().monitoring.log_many(rows, replace=moment)

@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False)
def mapped():
    @task(retries=1, retry_delay=timedelta(0))
    def measure(value, **context):
        store("without a context", value, logical_date())
        store("with one", value, logical_date(context))
        if value % 2 and context["ti"].try_number == 1:
            raise RuntimeError("after it has stored")
        return value

    @task_group
    def group(value):
        @task
        def first(value):
            store("in a group", value, logical_date())
            return value + 10

        @task
        def second(value):
            store("in a group, later", value, logical_date() - timedelta(hours=1))

        second(first(value))

    @task
    def moment_of(value):
        return logical_date()

    @task
    def measure_about(moment):
        store("with another task's", moment.map_index, moment)

    @task
    def reduce(values):
        assert type(logical_date()) is datetime
        store("reduced", sum(values), logical_date())

    reduce(measure.expand(value=[0, 1, 2, 3]))
    group.expand(value=[0, 1])
    measure_about.expand(moment=moment_of.expand(value=[0, 1]))

mapped()
"""
# A job apart that forgets to read its moment, and what comes after it all the same.
AS_TEXT = """
from datetime import datetime, timezone
from airflow.sdk import dag, task

@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False)
def as_text():
    @task.external_python(python="PYTHON", expect_airflow=False)
    def measure(moment):
        from mlops_db import get_db_manager

        get_db_manager().monitoring.log_many([], replace=moment)

    @task(trigger_rule="all_done")
    def after():
        pass

    measure("{{ ts }}") >> after()

as_text()
"""
RUN = """
import runpy
import sys
from datetime import datetime
moment, *files = sys.argv[1:]
for file in files:
    dag = runpy.run_path(file)[file.rpartition("/")[2].removesuffix(".py")]()
    run = dag.test(logical_date=datetime.fromisoformat(moment))
    print("state:", run.dag_id, run.state)
"""
# What the scheduler does with a folder of DAGs.
PARSE = """
import sys
import warnings
from airflow.dag_processing.dagbag import DagBag
from airflow import DeprecatedImportWarning
warnings.simplefilter("error", DeprecatedImportWarning)
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
for dag_id, dag in sorted(bag.dags.items()):
    print("parsed:", dag_id, *sorted(task.task_id for task in dag.tasks), min(task.retries for task in dag.tasks))
"""
EXAMPLES = ROOT / "examples" / "airflow"
MOMENT = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Airflow's database, and a place for DAGs."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    done = run_command("airflow", "db", "migrate", environment=environment_of(home), cwd=home, timeout=LONG_TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def environment_of(home: Path) -> dict[str, str]:
    return clean_environment(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES="airflow.* mlops_db.*",
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )


@pytest.fixture
def run_airflow(head: Database, airflow_home: Path) -> Callable[..., str]:
    """Runs a command in Airflow's environment, and returns what it prints."""
    environment = head.environment | environment_of(airflow_home)

    def run(*command: str) -> str:
        done = run_command(*command, environment=environment, cwd=airflow_home, timeout=LONG_TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def run_dags(run_airflow: Callable[..., str], airflow_home: Path) -> Callable[[Mapping[str, str]], str]:
    """Runs DAGs, by their names, about MOMENT, of which Airflow is told in another zone; returns what it prints."""

    def run(dags: Mapping[str, str], failing: Collection[str] = ()) -> str:
        files = {airflow_home / "dags" / f"{dag_id}.py": source for dag_id, source in dags.items()}
        for file, source in files.items():
            file.write_text(source, encoding="utf-8")
        in_kolkata = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
        printed = run_airflow(sys.executable, "-c", RUN, in_kolkata, *map(str, files))
        states = re.findall(r"^state: (\w+) (\w+)$", printed, re.MULTILINE)
        assert states == [(dag_id, "failed" if dag_id in failing else "success") for dag_id in dags], printed
        return printed

    return run


def test_a_rerun_replaces_what_it_stored_and_the_dag_of_the_page_runs(
    head: Database, run_dags: Callable[[Mapping[str, str]], str]
) -> None:
    head.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, timestamp) VALUES ('old', 'old', '2020-01-01')"
    )
    run_dags(
        {
            "twice": TWICE,
            "keep_metrics": example("docs/operating.md", "airflow"),
        }
    )
    assert head.query("SELECT metric_name, timestamp, metric_value FROM monitoring_metrics ORDER BY 1") == [
        ("twice", MOMENT, 0.9),
    ]


def test_airflow_parses_the_examples(run_airflow: Callable[..., str]) -> None:
    printed = run_airflow(sys.executable, "-c", PARSE, str(EXAMPLES))
    assert re.findall(r"^parsed: (.*)$", printed, re.MULTILINE) == [
        "monitoring coverage drift 3",
        "retraining decide evaluate train 3",
    ]


def test_the_example_of_monitoring(head: Database, run_dags: Callable[..., str]) -> None:
    source = (EXAMPLES / "monitoring.py").read_text(encoding="utf-8")
    broken = source.replace('"age": 0.03, ', "").replace('"retries": 3', '"retries": 1')
    run_dags({"monitoring": broken.replace("minutes=2", "minutes=0")}, failing={"monitoring"})
    failures = "SELECT metric_name, timestamp, metadata ->> 'error' FROM monitoring_metrics WHERE metric_value IS NULL"
    assert head.query(failures) == [("drift_score.age", MOMENT, "KeyError('age')")]
    run_dags({"monitoring": source})
    assert head.query(
        "SELECT metric_name, timestamp, metric_value, metadata -> 'map_index' FROM monitoring_metrics ORDER BY 1"
    ) == [
        ("coverage_rate", MOMENT, 0.93, None),
        ("drift_score.age", MOMENT, 0.03, 0),
        ("drift_score.income", MOMENT, 0.12, 1),
        ("drift_score.plan", MOMENT, 0.07, 2),
    ]


def test_the_example_of_retraining(head: Database, run_dags: Callable[..., str]) -> None:
    source = (EXAMPLES / "retraining.py").read_text(encoding="utf-8")
    # Each is a DAG of its own, so that one process of Airflow runs them all.
    candidates = {
        "retraining": source,
        "retraining_again": source,  # by then the candidate is in production
        "retraining_worse": another(source, "worse").replace("0.12}", "0.2}"),
        "retraining_better": another(source, "better").replace("0.81", "0.9").replace("days=3", "days=0"),
    }
    run_dags({dag_id: dag.replace("retraining()", f"{dag_id}()") for dag_id, dag in candidates.items()})
    run = f"{MOMENT:%Y%m%dT%H%M}"
    failed = "failed: promotion_cooldown, metric_improvement, calibration_maintained"
    assert head.query("SELECT candidate_mlflow_run_id, action, reasoning FROM retraining_decisions ORDER BY id") == [
        (f"churn-{run}", "promote", "the first version"),
        (f"churn-worse-{run}", "reject", failed),
        (f"churn-better-{run}", "promote", "all gates passed"),
    ]
    assert head.query("SELECT mlflow_run_id, status FROM model_versions ORDER BY id") == [
        (f"churn-{run}", "archived"),
        (f"churn-worse-{run}", "archived"),
        (f"churn-better-{run}", "production"),
    ]


def another(source: str, name: str) -> str:
    """The DAG with another candidate."""
    return source.replace('f"{MODEL}-', f'f"{{MODEL}}-{name}-').replace('f"{moment:', f'f"{name}-{{moment:')


def test_mapped_tasks_keep_each_other_s_rows(
    head: Database,
    run_airflow: Callable[..., str],
    run_dags: Callable[[Mapping[str, str]], str],
) -> None:
    run_dags({"mapped": MAPPED})
    stored = """
        SELECT metric_name, timestamp, array_agg(metric_value || ' of ' || coalesce(metadata ->> 'map_index', 'all')
                                                 ORDER BY metric_value)
          FROM monitoring_metrics GROUP BY 1, 2 ORDER BY 1
    """
    expected = [
        ("in a group", MOMENT, ["0 of 0", "1 of 1"]),
        ("in a group, later", MOMENT - timedelta(hours=1), ["10 of 0", "11 of 1"]),
        ("reduced", MOMENT, ["6 of all"]),
        ("with another task's", MOMENT, ["0 of 0", "1 of 1"]),
        ("with one", MOMENT, ["0 of 0", "1 of 1", "2 of 2", "3 of 3"]),
        ("without a context", MOMENT, ["0 of 0", "1 of 1", "2 of 2", "3 of 3"]),
    ]
    assert head.query(stored) == expected
    before = dict(head.query("SELECT id, metadata -> 'map_index' FROM monitoring_metrics"))

    run_airflow("airflow", "tasks", "test", "mapped", "measure", MOMENT.isoformat(), "--map-index", "2")
    assert head.query(stored) == expected
    after = dict(head.query("SELECT id, metadata -> 'map_index' FROM monitoring_metrics"))
    assert [after[id_] for id_ in after.keys() - before.keys()] == [2, 2]


def test_jobs_in_an_environment_of_their_own(
    head: Database, run_airflow: Callable[..., str], run_dags: Callable[[Mapping[str, str]], str], tmp_path: Path
) -> None:
    jobs = str(tmp_path / "jobs")
    python = f"{jobs}/bin/python"
    for command in (
        ["venv", "--quiet", "--no-project", jobs],
        ["pip", "install", "--quiet", f"--python={python}", f"--editable={ROOT}"],
    ):
        done = run_command("uv", *command, environment=clean_environment(), cwd=tmp_path, timeout=LONG_TIMEOUT_S)
        assert done.returncode == 0, done.stderr
    apart = example("docs/storing.md", "external_python").replace("/opt/jobs/bin/python", python)
    printed = run_dags({"monitoring_apart": apart, "as_text": AS_TEXT.replace("PYTHON", python)})
    run_airflow("airflow", "tasks", "test", "monitoring_apart", "row_count", MOMENT.isoformat(), "--map-index", "1")
    assert "mlops_db.errors.InvalidValueError: replace: " in printed
    assert "hint: Read text with datetime.fromisoformat(text)" in printed
    assert head.query("SELECT metric_name, timestamp, metadata FROM monitoring_metrics ORDER BY 1") == [
        ("coverage_rate", MOMENT, None),
        ("row_count.customers", MOMENT, {"map_index": 1}),
        ("row_count.orders", MOMENT, {"map_index": 0}),
    ]


def test_without_a_task_there_is_no_context(tmp_path: Path) -> None:
    script = "from mlops_db.adapters.airflow import logical_date; logical_date()"
    done = run_command(
        sys.executable, "-c", script, environment=clean_environment(AIRFLOW_HOME=str(tmp_path)), cwd=tmp_path
    )
    assert "mlops_db.errors.AdapterError: no task of Airflow is running here" in done.stderr


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


@pytest.mark.parametrize(
    ("ti", "map_index"),
    [
        ({}, None),
        ({"ti": SimpleNamespace(map_index=-1)}, None),
        ({"ti": SimpleNamespace(map_index=None)}, None),
        ({"ti": SimpleNamespace()}, None),
        ({"ti": SimpleNamespace(map_index=0)}, 0),
        ({"task_instance": SimpleNamespace(map_index=3)}, 3),
    ],
)
def test_a_mapped_task_has_its_index(ti: Mapping[str, Any], map_index: int | None) -> None:
    import pendulum  # noqa: PLC0415  (Airflow brings it along)

    for date in (
        {"logical_date": pendulum.instance(MIDNIGHT).in_timezone("Asia/Kolkata")},
        {"dag_run": SimpleNamespace(run_after=MIDNIGHT)},
    ):
        moment = logical_date({**date, **ti})
        assert (moment, moment.tzinfo) == (MIDNIGHT, timezone.utc)
        assert type(moment) is (datetime if map_index is None else MappedMoment)
        assert getattr(moment, "map_index", None) == map_index


@pytest.mark.parametrize(
    ("context", "reason", "hint"),
    [
        ({}, "neither a logical date nor a DAG run", "logical_date(context)"),
        ({"dag_run": None}, "neither a logical date nor a DAG run", "logical_date(context)"),
        ({"ts": "2026-03-01T00:00:00+00:00"}, "neither a logical date nor a DAG run", "datetime.fromisoformat(ts)"),
        ({"logical_date": MIDNIGHT.replace(tzinfo=None)}, "logical_date: .* has no time zone", "timezone.utc"),
        ({"logical_date": str(MIDNIGHT)}, "logical_date: .* is not a datetime", "datetime.fromisoformat(text)"),
        ({"dag_run": SimpleNamespace(run_after=str(MIDNIGHT))}, "run_after of dag_run: .* is not a", "fromisoformat"),
        (
            {"logical_date": MIDNIGHT, "ti": SimpleNamespace(map_index="3")},
            "map_index: is '3'",
            "logical_date(context)",
        ),
        ("2026-03-01T00:00:00Z", "'2026-03-01T00:00:00Z' is no context", "datetime.fromisoformat(text)"),
        (MIDNIGHT, "is no context", "directly"),
        (SimpleNamespace(logical_date=MIDNIGHT), "is no context", "logical_date(context)"),  # a DAG run
        (SimpleNamespace(map_index=3), "is no context", "logical_date(context)"),  # a task instance
    ],
)
def test_a_context_without_a_date_is_refused(context: Any, reason: str, hint: str) -> None:
    with pytest.raises(AdapterError, match=reason) as caught:
        logical_date(context)
    assert hint in caught.value.hint
