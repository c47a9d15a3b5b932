import datetime as dt
import json
import re

import pytest

from mlops_db.errors import StatementFailedError
from mlops_db.migration import commands
from support.database import Database
from support.json_shapes import check
from support.process import SECRET, assert_failed

pytestmark = pytest.mark.full_postgresql

FIELDS = [
    "id", "revision", "direction", "started_at", "finished_at", "role", "client", "tools", "outcome", "error", "backup",
]  # fmt: skip


@pytest.fixture
def with_history(empty: Database) -> Database:
    """A database with an upgrade, a failed one and a downgrade behind it."""
    commands.upgrade(empty.settings, "0001")
    empty.query("CREATE TYPE monitoring_metrics AS ENUM ('in the way')")
    with pytest.raises(StatementFailedError):
        commands.upgrade(empty.settings, "0002")
    commands.downgrade(empty.settings, "base")
    return empty


def test_it_lists_the_latest_first_and_then_what_failed(with_history: Database) -> None:
    done = with_history.run("mlops-db", "history")

    assert (done.returncode, done.stderr) == (0, "")
    heading, *lines = done.stdout.splitlines()
    assert heading.split("  ")[0] == "started (UTC)"
    table, failures = lines[:3], lines[3:]
    days = with_history.query(
        "SELECT to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM mlops_internal.migration_history"
        " ORDER BY id DESC"
    )
    shown = [re.split(r" {2,}", line) for line in table]
    assert [columns[1:4] for columns in shown] == [
        ["downgrade", "0001 model versions", "applied"],
        ["upgrade", "0002 monitoring metrics", "failed"],
        ["upgrade", "0001 model versions", "applied"],
    ]
    assert [(columns[0].split()[0],) for columns in shown] == days
    for columns in shown:
        assert re.fullmatch(r"[\d.]+ s", columns[4])
        assert columns[5] == with_history.settings.user
    assert failures[0] == ""
    assert failures[1].startswith("upgrade 0002 at ")
    assert "monitoring_metrics" in failures[1]


def test_json_has_whole_entries_and_the_database(with_history: Database) -> None:
    done = with_history.run("mlops-db", "history", "--json")

    report = json.loads(done.stdout)
    check(report)
    entries = report.pop("entries")
    assert report == {"schema": "history-1", "target": with_history.settings.target}
    assert [list(entry) for entry in entries] == [FIELDS] * 3
    assert [(entry["direction"], entry["revision"], entry["outcome"]) for entry in entries] == [
        ("downgrade", "0001", "applied"),
        ("upgrade", "0002", "failed"),
        ("upgrade", "0001", "applied"),
    ]
    assert entries[0]["error"] is None
    assert "monitoring_metrics" in entries[1]["error"]
    for entry in entries:
        started = dt.datetime.fromisoformat(entry["started_at"])
        assert re.fullmatch(r"[\d-]+T[\d:.]+\+00:00", entry["started_at"])
        assert started.utcoffset() == dt.timedelta(0)
        assert started <= dt.datetime.fromisoformat(entry["finished_at"])


def test_limit_keeps_the_latest(with_history: Database) -> None:
    done = with_history.run("mlops-db", "history", "--limit", "1", "--json")
    assert [entry["direction"] for entry in json.loads(done.stdout)["entries"]] == ["downgrade"]


def test_a_database_without_a_history_has_none(empty: Database) -> None:
    text = empty.run("mlops-db", "history")
    machine = empty.run("mlops-db", "history", "--json")

    assert (text.returncode, text.stdout) == (
        0,
        f"{empty.settings.target}: no migration run has been recorded here\n",
    )
    nothing = {"schema": "history-1", "target": empty.settings.target, "entries": []}
    assert (machine.returncode, json.loads(machine.stdout)) == (0, nothing)


@pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5", ""])
def test_a_wrong_limit_is_wrong_usage(empty: Database, limit: str) -> None:
    done = empty.run("mlops-db", "history", f"--limit={limit}")
    assert_failed(done, "--limit", "--help")
    assert done.returncode == 64


def test_a_role_that_may_not_read_it_is_reported(head: Database) -> None:
    head.query(f"CREATE ROLE mlops_test_stranger LOGIN PASSWORD '{SECRET}'")
    try:
        done = head.run("mlops-db", "history", POSTGRES_USER="mlops_test_stranger", POSTGRES_PASSWORD=SECRET)
    finally:
        head.query("DROP ROLE mlops_test_stranger")
    assert_failed(done, "permission denied", "mlops_test_stranger")
