"""Clusters of Citus: `uv run pytest -n 0 -m "citus and not soak" --postgresql-exec=/usr/lib/postgresql/18/bin/pg_ctl`.

Each test here runs on the programs that `--postgresql-exec` names. Without Citus there, it is skipped with a message;
in CI with MLOPS_DB_CITUS=required it fails. `--distributed` runs any other test on a distributed database of one node.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlops_db.admin.cluster.distribute import distribute
from mlops_db.migration.commands import upgrade
from support.citus import CitusCluster, citus_cluster
from support.cluster import chosen_programs
from support.database import Database

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.citus)


@pytest.fixture(scope="session")
def citus_programs(request: pytest.FixtureRequest, _empty_template: Any) -> Path:
    """The programs of a PostgreSQL that has Citus."""
    with psycopg.connect(
        host=_empty_template.host, port=_empty_template.port, user=_empty_template.user, dbname="postgres"
    ) as connection:
        found = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'citus'").fetchone()
    if not found:
        message = "this PostgreSQL has no Citus: --postgresql-exec names the pg_ctl of one that has"
        if os.environ.get("MLOPS_DB_CITUS") == "required":
            pytest.fail(message)
        pytest.skip(message)
    return chosen_programs(request.config)


@pytest.fixture(scope="session")
def one_node(citus_programs: Path) -> Iterator[CitusCluster]:
    """A coordinator that has all shards itself."""
    with citus_cluster(citus_programs, workers=0) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def two_workers(citus_programs: Path) -> Iterator[CitusCluster]:
    """A coordinator without shards, and two workers. Who stops a worker starts it again."""
    with citus_cluster(citus_programs, workers=2) as cluster:
        yield cluster


@pytest.fixture
def undistributed(one_node: CitusCluster) -> Iterator[Database]:
    """A database at head on one node with Citus, not distributed; its owner is no superuser."""
    with one_node.database("mlops_undistributed", owner="mlops_owner") as database:
        upgrade(database.settings)
        yield database


@pytest.fixture
def distributed(undistributed: Database) -> Database:
    """The same, distributed."""
    distribute(undistributed.settings)
    return undistributed


@pytest.fixture
def undistributed_over_two(two_workers: CitusCluster) -> Iterator[Database]:
    """A database at head on a coordinator with two workers, not distributed; its owner is no superuser."""
    with two_workers.database("mlops_over_two", owner="mlops_owner") as database:
        upgrade(database.settings)
        yield database


@pytest.fixture
def over_two(undistributed_over_two: Database) -> Database:
    """The same, distributed."""
    distribute(undistributed_over_two.settings)
    return undistributed_over_two
