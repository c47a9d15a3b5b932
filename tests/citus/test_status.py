"""`mlops-db status` on Citus: the nodes, what is on them, and a worker that does not answer."""

import json
from typing import Any

import pytest

from mlops_db.admin import status as of_status
from support.citus import CitusCluster
from support.cluster import freeze_server
from support.database import Database
from support.json_shapes import check, possible
from support.sessions import wait_until

ROWS = """
    INSERT INTO monitoring_metrics (model_name, metric_type, metric_name, metric_value)
    SELECT 'model ' || n %% 20, 'drift', 'psi', 1 FROM generate_series(1, %s) AS n
"""


def status(database: Database) -> Any:
    done = database.run("mlops-db", "status", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    check(answer)
    return answer


def test_what_is_not_distributed_is_one_line(undistributed: Database) -> None:
    done = undistributed.run("mlops-db", "status")

    version = undistributed.value("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
    assert f"cluster   Citus {version}; nothing is distributed, which `mlops-db distribute` does\n" in done.stdout
    assert status(undistributed)["cluster"] == {
        "version": version, "nodes": [], "tables": [], "complete": True, "fullest": None,
    }  # fmt: skip


def test_the_workers_have_what_the_coordinator_shows(over_two: Database, two_workers: CitusCluster) -> None:
    over_two.query(ROWS, [4_000])
    found: dict[str, Any] = {}

    def rows_are_known() -> bool:
        # The session that inserted may report its rows after ANALYZE has counted them.
        over_two.query("ANALYZE monitoring_metrics")
        found.update(status(over_two))
        return any(table["rows"] == 4_000 for table in found["cluster"]["tables"])

    wait_until(rows_are_known, "the statistics of the shards to have the rows once")
    cluster = found["cluster"]
    coordinator, *workers = cluster["nodes"]
    assert [node["address"] for node in cluster["nodes"]] == [
        f"{folder}:5432" for folder in (two_workers.coordinator, *two_workers.workers)
    ]
    assert (coordinator["is_coordinator"], coordinator["shards"]) == (True, 0)
    assert sum(node["shards"] for node in workers) == 8
    assert all(node["is_active"] and node["trouble"] is None and node["bytes"] > 0 for node in workers)
    tables = {table["name"]: (table["shards"], table["rows"], table["bytes"]) for table in cluster["tables"]}
    metrics = next(item for item in found["objects"] if item["name"] == "monitoring_metrics")
    assert (metrics["rows"], metrics["exact"]) == (4_000, True)
    assert tables["public.monitoring_metrics"] == (8, 4_000, metrics["bytes"])
    assert sum(size for _, _, size in tables.values()) == sum(node["bytes"] for node in workers)
    assert cluster["complete"]


def test_the_fullest_shard_is_named_with_its_models(over_two: Database) -> None:
    over_two.query(
        "INSERT INTO monitoring_metrics (model_name, metric_type, metric_name, metric_value)"
        " SELECT 'huge', 'drift', 'feature ' || n % 50, 1 FROM generate_series(1, 5000) AS n"
    )

    fullest = status(over_two)["cluster"]["fullest"]

    shard = over_two.value("SELECT get_shard_id_for_distribution_column('monitoring_metrics', 'huge')")
    where = "SELECT nodename || ':' || nodeport FROM citus_shards WHERE shardid = %s"
    assert fullest["node"] == over_two.value(where, [shard])
    assert fullest["bytes"] > 2 * fullest["mean_bytes"]
    assert (fullest["shards"], fullest["models"]) == (8, ["huge"])
    assert "huge; the mean is" in over_two.run("mlops-db", "status").stdout


def test_the_cluster_has_everything_that_its_schema_has(over_two: Database, two_workers: CitusCluster) -> None:
    over_two.query(ROWS, [40])
    seen = check(status(over_two))
    with freeze_server(two_workers.workers[1]):
        seen |= check(status(over_two))
    assert {one for one in possible("status-1") - seen if one[0].startswith(".cluster")} == set()


def test_a_worker_that_hangs_is_named(over_two: Database, two_workers: CitusCluster) -> None:
    over_two.query(ROWS, [40])
    with freeze_server(two_workers.workers[1]):
        done = over_two.run("mlops-db", "status")

    assert done.returncode == 0, done.stderr
    assert f"{two_workers.workers[1]}:5432 did not answer" in done.stdout
    assert f"{two_workers.workers[0]}:5432 did not answer" not in done.stdout
    assert "without the nodes that did not answer" in done.stdout
    assert "fullest" not in done.stdout


def test_what_asks_the_workers_is_not_canceled_while_it_connects(
    over_two: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    over_two.query(ROWS, [40])
    over_two.query("DELETE FROM mlops_internal.metric_series WHERE model_name = 'model 1'")
    monkeypatch.setattr(of_status, "COUNT_FOR_S", 0)  # a server so busy that the time is over: 10 ms for each query

    found = of_status.read_status(over_two.settings)

    assert any("register series" in text for text in found.upkeep)
    assert found.cluster is not None
    assert found.cluster.complete
