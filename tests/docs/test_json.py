"""docs/json.md: its examples have the shape of real outputs, its program and its lines of jq run."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import MlopsDbError
from mlops_db.migration import commands
from support.database import ROOT, SCRIPTS, Database, run_command
from support.examples import PLAIN, example
from support.json_shapes import OPTIONAL, SCHEMAS, check

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
EXAMPLES = {}
for text in re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
    shown = json.loads(text)
    EXAMPLES[shown["schema"]] = shown
(_JQ,) = re.findall(r"^```bash jq\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RECIPES = re.findall(r"^# .+\n(.+)$", _JQ, re.MULTILINE)
# What the lines of jq print, for the first database and for the second one; None for what says little about it.
FOUND = (
    (r"head\n", r"behind\n"),
    (None, r"(00\d\d\n){24}"),
    (r"churn\t12\t2\S+\n", r""),
    (r"true\n", r"false\n"),
    (r"\d{6}\n", None),
    (None, r"2\S+\t0002\tfailed\n"),
    (r"(00\d\d\t\d+\n){20}", None),
)


@pytest.fixture
def used(head: Database) -> Database:
    """The database of the page's first example."""
    head.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with DatabaseManager(head.settings) as db:
        db.models.register("7c0f3a", "12", model_name="churn", f1_score=0.81)
        db.models.promote("7c0f3a")
        db.monitoring.log("drift", "psi", 0.07, model_name="churn")
    return head


@pytest.fixture
def repeated(empty: Database) -> Database:
    """The database of the second one."""
    commands.upgrade(empty.settings, "0001")
    empty.query("CREATE TYPE monitoring_metrics AS ENUM ('in the way')")
    with pytest.raises(MlopsDbError):
        commands.upgrade(empty.settings, "0002")
    empty.query("DROP TYPE monitoring_metrics")
    return empty


def test_the_examples_are_real(used: Database, repeated: Database) -> None:
    assert set(EXAMPLES) == set(SCHEMAS)
    commands.upgrade(repeated.settings, "0002")
    real = {
        "status-1": used.run("mlops-db", "status", "--json"),
        "history-1": repeated.run("mlops-db", "history", "--limit", "3", "--json"),
        "error-1": used.run("mlops-db", "status", "--json", POSTGRES_HOST="127.0.0.1", POSTGRES_PORT="1"),
    }
    for name, shown in EXAMPLES.items():
        output = json.loads(real[name].stdout)
        assert check(shown) == {one for one in check(output) if one[0].lstrip(".") not in OPTIONAL}
        assert list(shown) == [key for key in output if key not in OPTIONAL]
    assert len(EXAMPLES["history-1"]["entries"]) == 3
    assert EXAMPLES["status-1"]["current"] == EXAMPLES["status-1"]["head"]


def test_the_schemas_are_listed() -> None:
    files = re.findall(r"\| `([\w-]+)` \|.+\[\1\.json\]\(\.\./src/mlops_db/json_schema/\1\.json\)", PAGE)
    assert sorted(files) == sorted(SCHEMAS)


def test_the_program_checks_an_object(used: Database, tmp_path: Path) -> None:
    file = tmp_path / "validate.py"
    file.write_text(example("docs/json.md", PLAIN), encoding="utf-8")
    path = {"PATH": f"{SCRIPTS}:/usr/bin:/bin"}
    for variables in ({}, {"MLOPS_DB_NAME": "mlops_test_nowhere"}):
        done = run_command(sys.executable, str(file), environment=used.environment | path | variables, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is missing")
def test_the_lines_of_jq_find_what_they_say(used: Database, repeated: Database) -> None:
    assert len(RECIPES) == len(FOUND)
    for line, patterns in zip(RECIPES, FOUND, strict=True):
        for database, pattern in zip((used, repeated), patterns, strict=True):
            if pattern is not None:
                output = find(database, line)
                assert re.fullmatch(pattern, output), (line, output)


def find(database: Database, line: str) -> str:
    environment = database.environment | {"PATH": f"{SCRIPTS}:/usr/bin:/bin"}
    done = run_command("bash", "-c", line, environment=environment)
    assert done.stderr == ""
    return done.stdout
