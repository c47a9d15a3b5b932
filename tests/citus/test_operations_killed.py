"""Nodes die, freeze and come back while jobs write: a row is there if its call was confirmed, and only then."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mlops_db.admin.cluster.distribute import distribute
from mlops_db.migration.commands import upgrade
from support.citus import CitusCluster, citus_cluster, kill, start_again
from support.cluster import connect_superuser, settings_of, stop
from support.database import Database
from support.metric_jobs import Jobs, assert_rows_are_those_of_confirmed_calls, jobs
from support.sessions import wait_until

SOAK_RUNS = int(os.environ.get("MLOPS_DB_SOAK_RUNS", "100"))
NAME = "mlops_killed"
RECOVERS_SOON = {"citus.recover_2pc_interval": "300ms", "citus.node_connection_timeout": "3s"}


@pytest.fixture(scope="module")
def mortal(citus_programs: Path) -> Iterator[CitusCluster]:
    """A coordinator and two workers that a test may kill, if it starts them again."""
    with citus_cluster(citus_programs, workers=2, **RECOVERS_SOON) as cluster:
        yield cluster


@pytest.fixture
def database(mortal: CitusCluster) -> Iterator[Database]:
    """A distributed database on them."""
    with mortal.database(NAME, owner="mlops_owner") as database:
        upgrade(database.settings)
        distribute(database.settings)
        yield database


def prepared(cluster: CitusCluster) -> list[tuple[str, str]]:
    """The prepared transactions on all nodes."""
    found = []
    for node in (cluster.coordinator, *cluster.workers):
        with closing(connect_superuser(node)) as server:
            found += [(node.name, gid) for (gid,) in server.execute("SELECT gid FROM pg_prepared_xacts").fetchall()]
    return found


def assert_all_as_confirmed(cluster: CitusCluster, running: Jobs) -> None:
    """Once the daemon has recovered what was prepared, the rows are those of confirmed calls."""
    wait_until(lambda: prepared(cluster) == [], "the end of all prepared transactions")
    settings = replace(settings_of(cluster.coordinator, NAME), user="mlops_owner")
    with psycopg.connect(host=settings.host, port=settings.port, user=settings.user, dbname=NAME) as connection:
        database = Database.of(connection)
        assert_rows_are_those_of_confirmed_calls(database, running.calls)
        assert database.query("SELECT * FROM mlops_internal.missing_series()") == []
        checked = database.run("mlops-db", "check")
        assert checked.returncode == 0, checked


def soak(normal: int, runs: int) -> list[object]:
    return [normal, pytest.param(runs, marks=pytest.mark.soak)]


@pytest.mark.parametrize("rounds", soak(3, SOAK_RUNS))
@pytest.mark.parametrize("who", ["worker", "coordinator", "restarted coordinator"])
def test_after_a_node_was_killed_the_rows_are_those_of_confirmed_calls(
    mortal: CitusCluster, database: Database, tmp_path: Path, who: str, rounds: int
) -> None:
    chance = random.Random(7)  # noqa: S311  (moments, not secrets)
    with jobs(database.settings, tmp_path / "jobs") as running:
        for _ in range(rounds):
            running.go_on(50)
            time.sleep(chance.uniform(0, 0.3))
            node = chance.choice(mortal.workers) if who == "worker" else mortal.coordinator
            if who == "restarted coordinator":
                stop(mortal.programs, node, "fast")
            else:
                kill(node)
            time.sleep(chance.uniform(0, 0.5))
            start_again(mortal.programs, node)
        running.go_on(100)
        running.stop()
    assert_all_as_confirmed(mortal, running)
    assert running.refused_for_good() == []
