"""Shards move while ten jobs write: to a new worker, off a worker, alone, split. No row is lost or doubled."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlops_db.admin.cluster.distribute import distribute
from mlops_db.migration.commands import upgrade
from mlops_db.storage.db_manager import DatabaseManager
from support.citus import CitusCluster, citus_cluster, database_on_worker
from support.cluster import connect_superuser
from support.database import Database
from support.metric_jobs import HUGE, Jobs, assert_rows_are_those_of_confirmed_calls, jobs, reruns

OWNER = "mlops_owner"
NAME = "mlops_moves"
# Splitting without blocking writes may never end if a row of the shard is deleted at its beginning: the new shards have
# no key then, and a subscription waits for it for ever.
QUICK = {"citus.background_task_queue_interval": "200ms", "citus.defer_shard_delete_interval": "500ms"}


@pytest.fixture(scope="module")
def three_workers(citus_programs: Path) -> Iterator[CitusCluster]:
    """A coordinator and three servers, of which a test takes what it needs."""
    with citus_cluster(citus_programs, workers=3, **QUICK) as cluster:
        yield cluster


class Moves:
    """A distributed database on the coordinator and two workers, and a third server that may become one."""

    def __init__(self, database: Database, server: psycopg.Connection[Any], third: Path) -> None:
        self.database, self.server, self.third = database, server, third

    def add_third(self) -> None:
        self.server.execute("SELECT citus_add_node(%s, 5432)", (str(self.third),))

    def shards_on(self, worker: Path) -> int:
        statement = (
            "SELECT count(*) FROM citus_shards WHERE nodename = %s AND table_name = 'monitoring_metrics'::regclass"
        )
        return self.database.value(statement, (str(worker),))

    def rebalance(self, mode: str) -> None:
        """In the background, as the documentation says, and wait for its end."""
        self.server.execute(
            "SELECT citus_rebalance_start(shard_transfer_mode => %s::citus.shard_transfer_mode)", (mode,)
        )
        self.server.execute("SELECT citus_rebalance_wait()")
        states = self.server.execute("SELECT status::text, count(*) FROM pg_dist_background_task GROUP BY 1").fetchall()
        assert dict(states).keys() == {"done"}, states

    def run(self, statement: str, *parameters: Any) -> None:
        self.server.execute(statement, parameters)


@pytest.fixture
def moves(three_workers: CitusCluster) -> Iterator[Moves]:
    *two, third = three_workers.workers
    with ExitStack() as left:
        left.enter_context(database_on_worker(third, NAME, owner=OWNER))
        cluster = CitusCluster(three_workers.programs, three_workers.coordinator, tuple(two))
        database = left.enter_context(cluster.database(NAME, owner=OWNER))
        server = left.enter_context(closing(connect_superuser(cluster.coordinator, NAME)))
        server.execute("SET client_min_messages = warning")
        upgrade(database.settings)
        distribute(database.settings)
        yield Moves(database, server, third)


@contextmanager
def written_to(moves: Moves, folder: Path, *, replaces: bool = True) -> Iterator[Jobs]:
    """Ten jobs write before, during and after the block; then all is as they were told."""
    with jobs(moves.database.settings, folder / "jobs", replaces=replaces) as running:
        running.go_on()
        yield running
        running.go_on()
        running.stop()
        assert_rows_are_those_of_confirmed_calls(moves.database, running.calls)
        assert running.refused_for_good() == []
    assert_in_order(moves.database)


def assert_in_order(database: Database) -> None:
    """The catalogue has every series, the schema is that of the revisions, and months can be made."""
    assert database.query("SELECT * FROM mlops_internal.missing_series()") == []
    checked = database.run("mlops-db", "check")
    assert checked.returncode == 0, checked
    assert database.value("SELECT mlops_internal.create_next_partition(4)") is not None
    with DatabaseManager(database.settings) as db:
        models = [f"late {i}" for i in range(40)] + [HUGE]
        rows = [{"metric_type": "t", "metric_name": "n", "metric_value": 1, "model_name": model} for model in models]
        db.monitoring.log_many(rows)
        assert {s.model_name for s in db.monitoring.series() if s.metric_type == "t"} == set(models)
    assert database.query("SELECT * FROM mlops_internal.missing_series()") == []


@pytest.mark.parametrize("mode", ["auto", "force_logical", "block_writes"])
def test_shards_go_to_a_new_worker_while_jobs_write(moves: Moves, tmp_path: Path, mode: str) -> None:
    with written_to(moves, tmp_path):
        moves.add_third()
        moves.rebalance(mode)
    assert moves.shards_on(moves.third) > 0


@pytest.mark.parametrize("mode", ["auto", "block_writes"])
def test_of_three_reruns_during_a_rebalance_one_has_all_the_rows(moves: Moves, tmp_path: Path, mode: str) -> None:
    moves.add_third()
    with reruns(moves.database, tmp_path, 3):
        moves.rebalance(mode)
    assert moves.shards_on(moves.third) > 0


def test_a_worker_is_drained_and_removed_while_jobs_write(moves: Moves, tmp_path: Path) -> None:
    moves.add_third()
    moves.rebalance("block_writes")
    with written_to(moves, tmp_path):
        moves.run("SELECT citus_drain_node(%s, 5432)", str(moves.third))
        moves.run("SELECT citus_remove_node(%s, 5432)", str(moves.third))
    assert moves.shards_on(moves.third) == 0


@pytest.mark.parametrize("mode", ["auto", "block_writes"])
def test_a_huge_model_gets_a_shard_and_then_a_worker_of_its_own_while_jobs_write(
    moves: Moves, tmp_path: Path, mode: str
) -> None:
    moves.add_third()
    with written_to(moves, tmp_path, replaces=mode == "block_writes"):
        moves.run(
            "SELECT isolate_tenant_to_new_shard('monitoring_metrics', %s::text, cascade_option => 'CASCADE',"
            " shard_transfer_mode => %s::citus.shard_transfer_mode)",
            HUGE, mode,
        )  # fmt: skip
        shard = "get_shard_id_for_distribution_column('monitoring_metrics', %s::text)"
        moves.run(
            "SELECT citus_move_shard_placement(shardid, nodename, nodeport, %s, 5432, %s::citus.shard_transfer_mode)"
            f" FROM pg_dist_placement JOIN pg_dist_node USING (groupid) WHERE shardid = {shard}",
            str(moves.third), mode, HUGE,
        )  # fmt: skip
    assert moves.shards_on(moves.third) == 1
    in_shard = moves.server.execute(
        f"SELECT shardminvalue = shardmaxvalue FROM pg_dist_shard WHERE shardid = {shard}", (HUGE,)
    )
    assert in_shard.fetchall() == [(True,)]


@pytest.mark.parametrize("mode", ["auto", "block_writes"])
def test_a_shard_is_split_while_jobs_write(moves: Moves, tmp_path: Path, mode: str) -> None:
    shards = "SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = 'monitoring_metrics'::regclass"
    before = moves.database.value(shards)
    with written_to(moves, tmp_path, replaces=mode == "block_writes"):
        moves.run(
            "SELECT citus_split_shard_by_split_points(shardid,"
            "       ARRAY[((shardminvalue::bigint + shardmaxvalue::bigint) / 2)::text], ARRAY[nodeid, nodeid],"
            "       %s::citus.shard_transfer_mode)"
            "  FROM pg_dist_shard JOIN pg_dist_placement USING (shardid) JOIN pg_dist_node USING (groupid)"
            " WHERE logicalrelid = 'monitoring_metrics'::regclass ORDER BY shardid LIMIT 1",
            mode,
        )  # fmt: skip
    assert moves.database.value(shards) == before + 1
