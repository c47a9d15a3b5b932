"""docs/testing.md: its suite runs, its command cleans up, and its workflow is one."""

import os
import re
from pathlib import Path

import pytest
import yaml

from mlops_db.server.embedded import client_program
from support.database import ROOT, Database, clean_environment, run_command
from support.suites import left_databases, on_server, outcomes, run_suite

pytestmark = [
    pytest.mark.one_postgresql,
    pytest.mark.plain_postgresql(reason="the plugin makes its own databases"),
]

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_suite_of_the_page_passes(empty: Database, tmp_path: Path) -> None:
    assert len(FILES) == len(blocks("python"))
    for name, source in FILES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    workflow = yaml.safe_load(blocks("yaml")[0])
    (command,) = (step["run"] for step in workflow["jobs"]["tests"]["steps"] if "pytest " in step.get("run", ""))
    pytest_, *options = command.split()
    here = dict(option.split("=") for option in on_server(empty.settings))
    options = [f"{name}={here.get(name, value)}" for name, value in (option.split("=") for option in options)]

    done = run_suite(tmp_path, "", "-W", "error", *options)

    assert pytest_ == "pytest"
    assert outcomes(done) == {"passed": 4}, done.stdout + done.stderr
    assert left_databases(empty) == []


def test_the_workflow_waits_for_its_server() -> None:
    workflow = yaml.safe_load(blocks("yaml")[0])
    (service,) = workflow["jobs"]["tests"]["services"].values()
    assert service["ports"] == ["5432:5432"]
    assert "pg_isready" in service["options"]


def test_its_command_drops_what_a_killed_session_left(empty: Database, tmp_path: Path) -> None:
    empty.connection.execute("CREATE DATABASE mlops_pytest_1795788543_3692d519_7")
    empty.connection.execute("CREATE DATABASE mlopsxpytestx1")
    (command,) = (block for block in blocks("bash") if block.startswith("psql "))
    where = f"-h {empty.settings.host} -p {empty.settings.port} -U {empty.settings.user}"
    path = f"{client_program('psql').parent}:{os.environ['PATH']}"

    done = run_command("bash", "-c", command.replace("-h localhost -U postgres", where), cwd=tmp_path,
                       environment=clean_environment(PATH=path))  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert left_databases(empty) == []
    empty.connection.execute("DROP DATABASE mlopsxpytestx1")
