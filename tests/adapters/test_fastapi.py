"""examples/fastapi, over HTTP: in this process, and as a process of uvicorn.

uv run --isolated --with fastapi --with httpx2 --with uvicorn pytest -n 0 -m adapters tests/adapters/test_fastapi.py
"""

import json
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.request import urlopen

import pytest

from mlops_db import DatabaseManager, get_db_manager
from mlops_db.migration.commands import upgrade
from support.database import ROOT, TIMEOUT_S, Database
from support.sessions import another_session, wait_until

pytestmark = pytest.mark.adapters
FOLDER = ROOT / "examples" / "fastapi"
NOON = (datetime.now(timezone.utc) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'mlops-db'"


@pytest.fixture
def client(head: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from fastapi.testclient import TestClient  # noqa: PLC0415

    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    with TestClient(runpy.run_path(str(FOLDER / "app.py"))["app"]) as client:
        yield client
    get_db_manager().close()


def test_the_version_in_production(head: Database, client: Any) -> None:
    assert client.get("/health").json() == "ok"
    assert client.get("/models/churn/production").status_code == 404
    with DatabaseManager(head.settings) as db:
        db.models.register("a1", "1", model_name="churn")
        db.models.promote("a1")
    found = client.get("/models/churn/production")
    assert (found.status_code, found.json()["mlflow_run_id"]) == (200, "a1")


def test_a_stored_value_is_listed_and_a_repeated_request_replaces_it(head: Database, client: Any) -> None:
    value = {"metric_type": "coverage", "metric_name": "rate é/%", "value": 0.9, "timestamp": NOON.isoformat()}
    for _ in range(2):
        assert client.put("/models/churn/metrics", json=value).status_code == 204
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 1
    assert client.get("/models/churn/metrics").json() == {"coverage/rate é/%": "ok"}
    assert client.put("/models/churn/metrics", json=value | {"metric_name": "rate"}).status_code == 204
    (point,) = client.get("/models/churn/metrics/coverage/rate").json()
    assert (datetime.fromisoformat(point["timestamp"]), point["value"]) == (NOON, 0.9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamp": NOON.replace(tzinfo=None).isoformat()},
        {"timestamp": (NOON + timedelta(days=9)).isoformat()},
        {"metric_name": ""},
        {"metric_name": "x" * 256},
        {"value": "much"},
    ],
)
def test_a_value_that_is_none_is_refused(head: Database, client: Any, wrong: dict[str, str]) -> None:
    value = {"metric_type": "coverage", "metric_name": "rate", "value": 0.9, "timestamp": NOON.isoformat()}
    assert client.put("/models/churn/metrics", json=value | wrong).status_code == 422
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 0


@pytest.mark.parametrize("days", ["0", "999999", "99999999999999999999", "many"])
def test_a_time_that_is_none_is_refused(client: Any, days: str) -> None:
    assert client.get("/models/churn/metrics/coverage/rate", params={"days": days}).status_code == 422


def test_the_health_check_answers_while_all_threads_wait(head: Database, client: Any) -> None:
    from anyio.to_thread import current_default_thread_limiter  # noqa: PLC0415

    threads = client.portal.call(current_default_thread_limiter)
    client.portal.call(setattr, threads, "total_tokens", 1)
    with ThreadPoolExecutor() as callers, another_session(head, "somebody", "LOCK TABLE model_versions"):
        waiting = callers.submit(client.get, "/models/churn/production")
        waits = "SELECT FROM pg_locks WHERE relation = 'model_versions'::regclass AND NOT granted"
        wait_until(lambda: head.query(waits), "the request to wait")
        for allowed, status in ((True, 200), (False, 503)):
            head.query("UPDATE pg_database SET datallowconn = %s WHERE datname = current_database()", [allowed])
            assert callers.submit(client.get, "/health").result(TIMEOUT_S).status_code == status
        assert not waiting.done()


def test_a_database_that_the_code_does_not_work_with_is_a_500(head: Database, client: Any) -> None:
    head.query("UPDATE alembic_version SET version_num = '9999'")
    get_db_manager().close()  # a new manager reads the revision again
    refused = client.get("/models/churn/production")
    assert refused.status_code == 500
    assert "'9999'" in refused.json()["error"]


def test_uvicorn_waits_for_the_migration_and_ends_its_sessions(empty: Database) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"],
        env=empty.environment,
        cwd=FOLDER,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            assert any("Waiting for application startup" in line for line in lines)
            upgrade(empty.settings)
            (port,) = next(found.groups() for line in lines if (found := re.search(r"http://127.0.0.1:(\d+)", line)))
            with urlopen(f"http://127.0.0.1:{port}/models/churn/metrics", timeout=TIMEOUT_S) as answer:
                assert json.load(answer) == {}
            assert empty.value(SESSIONS, [empty.settings.database]) >= 1
            process.send_signal(signal.SIGTERM)
            assert any("Application shutdown complete" in line for line in lines)
        finally:
            process.kill()
    wait_until(lambda: empty.value(SESSIONS, [empty.settings.database]) == 0, "the sessions of the service to end")
