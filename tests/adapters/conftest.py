"""Servers that the adapters' tests share; each takes seconds to start."""

from collections.abc import Iterator

import pytest

from support.mlflow_server import MlflowServer, running_server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server of its own: a test of an outage uses `outage()`, after which the next test finds it again."""
    with running_server(tmp_path_factory.mktemp("mlflow-server")) as server:
        yield server
