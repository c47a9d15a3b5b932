"""What somebody sees who has not installed the tool; here, none of them is."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.one_postgresql

SCRIPT = """
import sys
sys.modules.update(dict.fromkeys(["airflow", "evidently", "mlflow"]))  # as if they were not installed
from mlops_db.adapters import airflow, evidently, mlflow
from mlops_db.errors import MissingExtraError
for call in (airflow.logical_date, lambda: mlflow.register_run(None, "run")):
    try:
        call()
    except MissingExtraError as missing:
        print(missing.hint)
print(evidently.report_rows({"metrics": [{"config": {"type": "evidently:metric_v2:RowCount"}, "value": 3}]}))
"""


def test_the_adapters_are_imported_without_their_tools_and_calls_say_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *missing, rows = done.stdout.splitlines()
    assert [line.rpartition("pip install ")[2] for line in missing] == ["'mlops-db[airflow]'`.", "'mlops-db[mlflow]'`."]
    assert "'metric_name': 'row_count', 'metric_value': 3.0" in rows  # a report is read without Evidently
