"""What a run logs: everything for a program that gives no stream, and nothing twice on the command line."""

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command

from mlops_db.errors import MlopsDbError
from mlops_db.migration import commands
from mlops_db.server.advisory import RUN_LOCK
from support.database import Database, run_command
from support.projects import Checkout, sql
from support.sessions import another_session

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

NAME = "mlops_db.migration"
OURS = """
[logger_ours]
level = INFO
handlers =
qualname = mlops_db
"""


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Records of all levels, as for a program that sets the root's level alone."""
    with caplog.at_level(logging.DEBUG):
        yield


def records(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[logging.LogRecord]:
    found = [record for record in caplog.records if record.name == NAME and record.levelno >= level]
    assert all(record.getMessage().isprintable() for record in found)
    return found


def fields(record: logging.LogRecord) -> dict[str, Any]:
    known = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    return {name: value for name, value in vars(record).items() if name not in known}


def test_a_run_logs_its_beginning_its_steps_with_their_durations_and_its_end(
    empty: Database, caplog: pytest.LogCaptureFixture
) -> None:
    commands.upgrade(empty.settings, "0002")
    begins, first, second, ends = records(caplog)
    run = {"target": empty.settings.target, "from_revision": "base", "to_revision": "0002", "steps": 2}

    assert begins.getMessage() == "the run from base to 0002 begins, steps: 2"
    assert fields(begins) == run
    assert re.fullmatch(r"\[1/2\] 0001 model_versions: done in [\d.]+ s", first.getMessage())
    took = fields(second).pop("duration_s")
    assert fields(second) == {
        "target": empty.settings.target, "revision": "0002", "direction": "upgrade", "duration_s": took,
    }  # fmt: skip
    assert 0 <= took <= fields(ends)["duration_s"]
    assert fields(ends) == {**run, "duration_s": fields(ends)["duration_s"]}
    assert {record.levelno for record in records(caplog)} == {logging.INFO}
    assert any(record.getMessage() == "[1/2] 0001 model_versions begins" for record in records(caplog, logging.DEBUG))

    caplog.clear()
    commands.upgrade(empty.settings, "0002")
    assert [record.getMessage() for record in records(caplog)] == [f"{empty.settings.target}: nothing to do"]

    caplog.clear()
    commands.run_command(command.stamp, commands.alembic_config(empty.settings), "0001")
    assert [fields(record).get("direction") for record in records(caplog)] == [None, "stamp", None]


def test_a_failure_is_one_line_of_the_server_without_values(
    empty: Database, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    checkout = Checkout(tmp_path)
    values = sql("CREATE TABLE t (i text PRIMARY KEY)", "INSERT INTO t VALUES ('Jane Doe'), ('Jane Doe')")
    revision = checkout.add(values)
    with pytest.raises(MlopsDbError):
        commands.run_command(command.upgrade, checkout.config(empty.settings), "head")

    (failure,) = records(caplog, logging.ERROR)
    assert failure.getMessage() == (
        f'revision {revision} failed: duplicate key value violates unique constraint "t_pkey"'
    )
    assert fields(failure) == {"target": empty.settings.target, "revision": revision, "error": "IntegrityError"}
    assert "Jane" not in caplog.text
    assert records(caplog)[-1] is failure


def test_who_blocks_a_run_is_a_warning(empty: Database, caplog: pytest.LogCaptureFixture) -> None:
    commands.upgrade(empty.settings, "0004")
    caplog.clear()
    impatient = replace(empty.settings, lock_timeout=500, retry_for=2000)
    with (
        another_session(empty, "a report\nof Jane's", "LOCK TABLE model_versions IN ACCESS SHARE MODE"),
        pytest.raises(MlopsDbError, match="no lock after"),
    ):
        commands.upgrade(impatient, "0005")

    warnings = [record for record in records(caplog) if record.levelno == logging.WARNING]
    assert warnings
    for warning in warnings:
        assert re.fullmatch(r"no lock, blocked by pid \d+ .*; next try in [\d.]+ s", warning.getMessage())
        assert "a report" in fields(warning)["blocked_by"]
    assert "no lock after" in records(caplog, logging.ERROR)[0].getMessage()


def test_a_run_that_waits_for_another_one_names_it(empty: Database, caplog: pytest.LogCaptureFixture) -> None:
    with (
        another_session(empty, "mlops-db of somebody", f"SELECT pg_advisory_xact_lock({RUN_LOCK})"),
        pytest.raises(MlopsDbError, match="still holds the lock"),
    ):
        commands.upgrade(replace(empty.settings, lock_wait=100), "0001")
    waiting, failed = records(caplog)
    assert waiting.getMessage().startswith("waiting for another run or command: pid ")
    assert "mlops-db of somebody" in fields(waiting)["blocked_by"]
    assert (waiting.levelno, failed.levelno) == (logging.INFO, logging.ERROR)


def test_what_a_stream_shows_is_logged_only_if_our_logger_has_a_level(
    empty: Database, caplog: pytest.LogCaptureFixture
) -> None:
    commands.upgrade(empty.settings, "0001", progress=io.StringIO())
    assert records(caplog) == []
    stream = io.StringIO()
    with caplog.at_level(logging.INFO, "mlops_db"):
        commands.upgrade(empty.settings, "0002", progress=stream)
    assert len(records(caplog)) == 3
    assert "0002 monitoring_metrics" in stream.getvalue()


# On the command line


def blocked(database: Database, *command: str, **variables: str) -> str:
    """What is shown of an upgrade that gets no lock."""
    with another_session(database, "a report", "LOCK TABLE model_versions IN ACCESS SHARE MODE"):
        environment = database.environment | {"MLOPS_LOCK_TIMEOUT": "100ms", "MLOPS_RETRY_FOR": "1500ms"} | variables
        done = run_command(*command, environment=environment)
    assert done.returncode in {1, 255}
    return done.stdout + done.stderr


@pytest.mark.parametrize("program", [("alembic",), ("mlops-db", "alembic")])
def test_no_line_comes_twice(empty: Database, program: tuple[str, ...]) -> None:
    commands.upgrade(empty.settings, "0004")
    shown = blocked(empty, *program, "upgrade", "0005")
    assert "mlops_db" not in shown
    (tries,) = re.findall(r"no lock after (\d+) tries", shown)
    assert shown.count("no lock, blocked by") == int(tries) - 1 > 0
    shown = blocked(empty, "mlops-db", "init")
    assert "warning:" not in shown
    (tries,) = re.findall(r"no lock after (\d+) tries", shown)
    assert shown.count("no lock, blocked by") == int(tries) - 1 > 0


def test_whoever_names_our_logger_gets_records_beside_the_progress(empty: Database, tmp_path: Path) -> None:
    ini = Checkout(tmp_path).ini
    text = ini.read_text(encoding="utf-8").replace("keys = root, messaging", "keys = root, messaging, ours")
    ini.write_text(text + OURS, encoding="utf-8")
    done = empty.run("alembic", "-c", str(ini), "upgrade", "0001")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\[1/1\] 0001 model_versions \.\.\.", done.stderr, re.MULTILINE)
    assert f"INFO  [{NAME}] [1/1] 0001 model_versions: done in" in done.stderr
