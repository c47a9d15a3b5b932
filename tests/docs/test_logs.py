"""docs/operating.md, "Logs": its program writes what it says, and its table has every field that a record has."""

import json
import logging
import re
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_db import DatabaseManager
from mlops_db.admin.retention import maintain
from mlops_db.errors import MlopsDbError
from mlops_db.migration import commands
from mlops_db.migration.progress import Progress
from mlops_db.storage import pool
from support.database import ROOT, Database, run_command
from support.sessions import another_session

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
_, _, _SECTION = PAGE.partition("\n## Logs\n")
SECTION = _SECTION.partition("\n## ")[0]
JOB = """
from mlops_db import get_db_manager
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings

upgrade(Settings.from_environment(), "head")
db = get_db_manager()
db.models.register("run-1", "1")
db.models.promote("run-1")
db.monitoring.log_many([{}], on_invalid="skip")
"""


def documented() -> dict[tuple[str, str], set[str]]:
    """The fields of the table, by logger and level."""
    fields: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    logger = ""
    row = r"^\| (?:`(mlops_db\.\w+)` )?\| ([A-Z]+) \|.+\| ([\w, ]*)\|$"
    for name, level, listed in re.findall(row, SECTION, re.MULTILINE):
        logger = name or logger
        fields[logger, level] |= set(listed.replace(",", " ").split())
    return fields


def test_the_program_writes_lines_of_json_with_the_fields(empty: Database, tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    file = tmp_path / "job.py"
    file.write_text(program + JOB, encoding="utf-8")
    done = run_command(sys.executable, str(file), environment=empty.environment, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {(line["logger"], line["level"]) for line in lines} == {
        ("mlops_db.migration", "INFO"), ("mlops_db.storage", "WARNING"),
    }  # fmt: skip
    assert lines[-1]["skipped"] == 1
    assert lines[-2]["to_revision"] == lines[-3]["revision"]
    assert all({"time", "level", "logger", "message"} < set(line) for line in lines)


def test_the_table_has_the_fields_and_no_others(
    head: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = replace(head.settings, lock_timeout=500, retry_for=5000)
    commands.downgrade(settings, "-1")
    with another_session(head, "a report", "LOCK TABLE model_versions"), pytest.raises(MlopsDbError):
        commands.upgrade(settings)
    commands.upgrade(settings)
    Progress(None, logging.getLogger("mlops_db.migration")).report("an index", 1, 2)
    head.query("SET session_replication_role = replica")
    head.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'unregistered')")
    maintain(settings, keep=None)
    monkeypatch.setattr(pool, "LONG_WAIT_S", 0.0)
    with DatabaseManager(settings) as db:
        db.models.register("run-1", "1")
        db.models.promote("run-1")
        db.monitoring.log_many(
            [{}, {"metric_type": "drift", "metric_name": "psi", "metric_value": 1}], on_invalid="skip"
        )
        db.monitoring.forget("drift", "psi", with_rows=True)
        with db.get_connection() as connection:
            pass
        connection.cursor().execute("SELECT 1")
        db.execute_query("SELECT 1")

    known = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for record in caplog.records:
        if record.name.startswith("mlops_db"):
            found[record.name, record.levelname] |= vars(record).keys() - known
    table = documented()
    for place, fields in found.items():
        assert fields <= table[place], place
    loggers = {name for name, _ in table}
    assert loggers == {f"mlops_db.{name}" for name in names_in_the_source()}
    for name in ("mlops_db.migration", "mlops_db.storage"):
        everywhere = {field for place, fields in found.items() if place[0] == name for field in fields}
        assert everywhere == {field for place, fields in table.items() if place[0] == name for field in fields}


def names_in_the_source() -> set[str]:
    files = (ROOT / "src" / "mlops_db").rglob("*.py")
    texts = (file.read_text(encoding="utf-8") for file in files)
    return {name for text in texts for name in re.findall(r'getLogger\("mlops_db\.(\w+)"\)', text)}
