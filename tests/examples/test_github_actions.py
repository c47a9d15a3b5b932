"""examples/github-actions: the workflow is one, and its lines do what they are there for."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg import sql

from support.database import LONG_TIMEOUT_S, ROOT, SCRIPTS, Database, clean_environment, run_command

pytestmark = pytest.mark.one_postgresql

WORKFLOW = ROOT / "examples" / "github-actions" / "mlops-db.yml"
OWN_TEST = """
from mlops_db import get_db_manager

def test_a_job_stores():
    db = get_db_manager()
    db.monitoring.log("coverage", "coverage_rate", 0.9)
    assert [state.health for state in db.monitoring.latest()] == ["ok"]
"""
NAME = "mlops_test_workflow"


def job() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["database"]
    return read


def lines() -> list[str]:
    return [step["run"] for step in job()["steps"] if "run" in step]


@pytest.mark.parametrize("misspelt", [False, True])
def test_it_fits_the_schema_of_workflows(tmp_path: Path, *, misspelt: bool) -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    file = tmp_path / "mlops-db.yml"
    file.write_text(text.replace("steps:", "stesp:") if misspelt else text, encoding="utf-8")
    done = run_command(
        "check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(file),
        environment=clean_environment(), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == misspelt, done.stdout + done.stderr


def test_the_job_connects_to_its_service() -> None:
    variables, service = job()["env"], job()["services"]["postgres"]
    assert service["ports"] == [f"{variables['POSTGRES_HOST']}:{variables['POSTGRES_PORT']}:5432"]
    assert service["env"] == {name: variables[name] for name in ("POSTGRES_USER", "POSTGRES_PASSWORD")}


@pytest.mark.slow
def test_its_lines_run(empty: Database, tmp_path: Path) -> None:
    install, *others = lines()
    assert install.startswith("pip install 'mlops-db[check]' pytest")
    (tmp_path / "test_own.py").write_text(OWN_TEST, encoding="utf-8")
    server = empty.settings
    environment = clean_environment(**job()["env"]) | {
        "POSTGRES_HOST": server.host,
        "POSTGRES_PORT": str(server.port),
        "POSTGRES_USER": server.user,
        "POSTGRES_PASSWORD": server.password or "",
        "MLOPS_DB_NAME": NAME,
        "PATH": f"{SCRIPTS}:/usr/bin:/bin",
    }
    try:
        for line in others:
            command = [sys.executable, *shlex.split(line)[1:]] if line.startswith("python ") else shlex.split(line)
            done = run_command(*command, environment=environment, cwd=tmp_path, timeout=LONG_TIMEOUT_S)
            assert done.returncode == 0, (line, done.stdout, done.stderr)
    finally:
        empty.connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} (FORCE)").format(sql.Identifier(NAME)))
