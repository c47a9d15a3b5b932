"""What docs/storing.md does with FastAPI and matplotlib, done.

uv run --isolated --with fastapi --with httpx2 --with matplotlib pytest -n 0 -m adapters tests/adapters/test_recipes.py
"""

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_db import DatabaseManager, get_db_manager
from support.database import Database, run_command
from support.examples import PLAIN, example

pytestmark = pytest.mark.adapters
PAGE = "docs/storing.md"


@pytest.fixture
def app(head: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "service.py"
    file.write_text(example(PAGE, "fastapi"), encoding="utf-8")
    yield runpy.run_path(str(file))["app"]
    get_db_manager().close()


def test_the_service_answers_from_the_database(head: Database, app: Any) -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415

    with TestClient(app) as client:
        assert client.get("/health").json() == "ok"
        assert client.get("/models/churn/production").status_code == 404

        with DatabaseManager(head.settings) as db:
            db.models.register("a1", "1", model_name="churn")
            db.models.promote("a1")
        found = client.get("/models/churn/production")
        assert (found.status_code, found.json()["mlflow_run_id"]) == (200, "a1")

        head.query("UPDATE alembic_version SET version_num = '9999'")
        get_db_manager().close()  # whoever looks anew finds another revision than this code's
        refused = client.get("/models/churn/production")
        assert refused.status_code == 500
        assert "'9999'" in refused.json()["error"]


def test_the_plot_is_drawn(head: Database, tmp_path: Path) -> None:
    file = tmp_path / "storing.py"
    file.write_text(example(PAGE, PLAIN, "matplotlib"), encoding="utf-8")
    environment = head.environment | {"MPLBACKEND": "agg"}
    done = run_command(sys.executable, str(file), environment=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f1_score.png").read_bytes().startswith(b"\x89PNG")
