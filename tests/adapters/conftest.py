"""What the adapters' tests share: a server that takes seconds to start, and where they run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mlflow_server import MlflowServer, running_server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server of its own: a test of an outage uses `outage()`, after which the next test finds it again."""
    with running_server(tmp_path_factory.mktemp("mlflow-server")) as server:
        yield server


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the test's own: MLflow leaves a store wherever it runs, and soon says that a server is down."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
