"""What jobs log: changes, and what somebody should look at; never a value that was passed."""

import logging
import math
import subprocess
import sys
from typing import Any

import pytest

from mlops_db import DatabaseManager
from mlops_db.storage import pool
from mlops_db.storage.metrics.copy_stream import MAX_SKIPPED
from support.database import Database
from support.sessions import wait_until

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

NAME = "mlops_db.storage"


@pytest.fixture(autouse=True)
def changes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records from INFO on, but none of a server that is slow to connect."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(pool, "LONG_WAIT_S", math.inf)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The level and the text of our records, which are then forgotten."""
    found = [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("mlops_db")]
    assert all(text.isprintable() for _, text in found)
    caplog.clear()
    return found


def fields(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The fields of the latest record."""
    known = {*vars(logging.makeLogRecord({})), "message"}
    return {name: value for name, value in vars(caplog.records[-1]).items() if name not in known}


def test_a_change_of_a_stage_is_logged_once(db: DatabaseManager, caplog: pytest.LogCaptureFixture) -> None:
    def version(number: int, what: str) -> tuple[str, str]:
        return "INFO", f"version {number} of model churn (run run\\n{number}) {what}"

    for number in (1, 2, 3):
        db.models.register(f"run\n{number}", number, model_name="churn")
    assert logged(caplog) == []
    for number in (1, 2):
        db.models.promote(f"run\n{number}", reasoning="secret", decided_by="Jane Doe")
        db.models.promote(f"run\n{number}", reasoning="secret", decided_by="Jane Doe")
    assert fields(caplog) == {
        "model_name": "churn", "model_version": "2", "mlflow_run_id": "run\n2", "status": "production",
    }  # fmt: skip
    assert logged(caplog) == [version(1, "is promoted"), version(2, "is promoted")]
    db.models.rollback("churn", of="run\n2", reasoning="secret")
    assert logged(caplog) == [version(2, "is rolled back"), version(1, "is promoted")]
    db.models.reject("run\n3", reasoning="secret")
    db.models.reject("run\n3", reasoning="secret")
    assert logged(caplog) == [version(3, "is rejected")]
    db.models.archive("run\n1", even_production=True)
    db.models.archive("run\n1")
    assert logged(caplog) == [version(1, "is archived")]


def test_rows_that_are_left_out_are_a_warning_without_their_values(
    db: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"metric_type": "drift", "metric_name": "psi", "metric_value": 1.0}
    bad = good | {"metric_value": "Jane Doe"}
    db.monitoring.log_many([good, bad], on_invalid="skip")
    assert fields(caplog) == {"rows": 1, "skipped": 1, "row": 1, "key": "metric_value"}
    db.monitoring.log_many([good, *[bad] * (MAX_SKIPPED + 5), "Jane Doe"], on_invalid="skip")
    db.monitoring.log_many(["Jane Doe"], on_invalid="skip")
    db.monitoring.log_many([good], on_invalid="skip")
    left_out = "rows, which cannot be stored; the first one is row"
    assert logged(caplog) == [
        ("WARNING", f"log_many left out 1 of 2 {left_out} 1 (metric_value)"),
        ("WARNING", f"log_many left out {MAX_SKIPPED + 6} of {MAX_SKIPPED + 7} {left_out} 1 (metric_value)"),
        ("WARNING", f"log_many left out 1 of 1 {left_out} 0 (the whole row)"),
    ]


def test_a_series_that_is_forgotten_is_logged_with_its_rows(
    db: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    db.monitoring.log("drift", "p\ns", 1.0)
    db.monitoring.forget("drift", "p\ns", with_rows=True)
    assert fields(caplog) == {"model_name": "default", "metric_type": "drift", "metric_name": "p\ns", "rows": 1}
    assert logged(caplog) == [("INFO", "series default drift p\\ns is forgotten, with 1 rows")]


def test_a_connection_that_is_replaced_is_logged_with_the_reason(
    head: Database, db: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    start = f"{head.settings.target}: a pooled connection is replaced: "
    pid = db.execute_query("SELECT pg_backend_pid()")[0][0]
    head.query("SELECT pg_terminate_backend(%s::int)", (pid,))
    wait_until(lambda: not head.query("SELECT FROM pg_stat_activity WHERE pid = %s", (pid,)), "its end")
    db.execute_query("SELECT 1")
    assert logged(caplog) == [("INFO", start + "the server or the network has closed it")]

    with db.get_connection() as connection:
        pass
    connection.cursor().execute("SELECT 1")
    db.execute_query("SELECT 1")
    assert logged(caplog) == [("WARNING", start + "somebody has used it after the end of its block")]


def test_a_long_wait_for_a_connection_is_a_warning(
    head: Database, db: DatabaseManager, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute_query("SELECT 1")
    assert logged(caplog) == []
    monkeypatch.setattr(pool, "LONG_WAIT_S", 0.0)
    db.execute_query("SELECT 1")
    assert set(fields(caplog)) == {"target", "duration_s"}
    ((level, text),) = logged(caplog)
    assert level == "WARNING"
    assert text.startswith(f"{head.settings.target}: a connection came after 0.0 s: ")


def test_sqlalchemy_does_not_log_its_pool_under_our_name(head: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), DatabaseManager(head.settings) as db:
        db.execute_query("SELECT 1")
    assert {record.name for record in caplog.records if record.name.startswith("mlops_db")} <= {NAME}


def test_without_a_configuration_of_logging_nothing_is_written(head: Database) -> None:
    program = """
        import logging
        from mlops_db import get_db_manager
        get_db_manager().monitoring.log_many([{}], on_invalid="skip")
        assert not logging.root.handlers and logging.root.level == logging.WARNING
    """
    program = "\n".join(line.strip() for line in program.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", program], env=head.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
