"""Code of an earlier commit on a newer database: it goes on where the newer revisions leave it unaffected.

The earlier commit comes from git. Its storage layer runs as a process of its own, with the same virtual environment.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from alembic import command

from mlops_db import DatabaseManager
from mlops_db.migration.commands import run_command
from support.database import ROOT, TIMEOUT_S, Database
from support.projects import Checkout, sql

pytestmark = [pytest.mark.one_postgresql, pytest.mark.libraries]

# Any commit that looks at `Running code:` will do, as long as no revision since then breaks its code. After one that
# does, take a commit that has it.
COMMIT = "d0e11d56147939323486894e9eb7f64bb4641e18"
JOB = """
import json, logging, sys
from datetime import datetime, timezone
from mlops_db import get_db_manager
from mlops_db.revisions.graph import package_graph
import mlops_db

logging.basicConfig(stream=sys.stderr, format="%(message)s")
db = get_db_manager()
noon = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
db.models.register("run-1", "1", f1_score=0.5)
db.models.promote("run-1")
db.models.register("run-2", "2", f1_score=0.75)
db.models.promote("run-2", gates={"metric_improvement": {"passed": True}})
db.monitoring.log("drift", "psi", 0.5, timestamp=noon)
row = {"metric_type": "drift", "metric_name": "psi", "metric_value": 0.25}
db.monitoring.log_many([row], replace=noon)
print(json.dumps({
    "file": mlops_db.__file__,
    "heads": package_graph().heads,
    "production": db.models.production().mlflow_run_id,
    "versions": [version.status for version in db.models.list()],
    "decisions": [decision.action for decision in db.decisions.history()],
    "metrics": [row.metric_value for row in db.monitoring.history("drift", "psi")],
    "series": [series.metric_name for series in db.monitoring.series()],
    "latest": len(db.monitoring.latest()),
}))
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of COMMIT, in a folder."""
    if not (ROOT / ".git").exists():
        pytest.skip(f"{ROOT} is no checkout, such as an unpacked sdist, so there is no earlier commit")
    if shutil.which("git") is None and os.environ.get("CI") != "true":
        pytest.skip("git, which has the earlier commit, is missing")
    # The checkout may be another user's, as in a container.
    git = ["git", "-c", f"safe.directory={ROOT}"]
    archive = subprocess.run(
        [*git, "archive", "--format=tar", COMMIT, "src", "migrations", "alembic.ini"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if archive.returncode:
        reason = f"git has no commit {COMMIT} in {ROOT}: {archive.stderr.decode().strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; check out the whole history (fetch-depth: 0)")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def run_job(older: Path, database: Database) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOB],
        cwd=older,
        env=database.environment | {"PYTHONPATH": str(older / "src")},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.plain_postgresql(reason="code from before Citus does not know distributed tables")
def test_code_of_an_earlier_commit_works_where_newer_revisions_leave_it_unaffected(
    head: Database, tmp_path: Path, older: Path
) -> None:
    newer = Checkout(tmp_path)
    newer.add(
        sql("ALTER TABLE model_versions ADD COLUMN owner text NOT NULL DEFAULT 'nobody'"), running_code="unaffected."
    )
    run_command(command.upgrade, newer.config(head.settings), "head")

    done = run_job(older, head)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["file"]).is_relative_to(older)
    (revision,) = result["heads"]
    assert done.stderr == (
        f"{head.settings.target} is at revision {newer.head}, newer than revision {revision} of this code, which still"
        " works with it\n"
    )
    assert result["production"] == "run-2"
    assert sorted(result["versions"]) == ["archived", "production"]
    assert result["decisions"] == ["promote", "promote"]
    assert result["metrics"] == [0.25]
    assert (result["series"], result["latest"]) == (["psi"], 1)
    with DatabaseManager(head.settings) as db:  # this commit's code, which accepts that database, too
        assert [version.mlflow_run_id for version in db.models.list()] == ["run-2", "run-1"]


def test_code_of_an_earlier_commit_is_refused_where_a_newer_revision_breaks_it(
    head: Database, tmp_path: Path, older: Path
) -> None:
    newer = Checkout(tmp_path)
    breaking = newer.add(
        sql("ALTER TABLE model_versions RENAME status TO stage"), running_code="breaks: all that reads status."
    )
    run_command(command.upgrade, newer.config(head.settings), "head")

    done = run_job(older, head)

    assert done.returncode == 1
    # From Python 3.11 on, a traceback ends with the hint.
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("mlops_db.errors.OutdatedCodeError: ")]
    assert f"is at revision {breaking}, which works with code of revision {breaking} and later" in error
    assert head.value("SELECT count(*) FROM model_versions") == 0
