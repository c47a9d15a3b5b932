"""`mlops-db maintain` on Citus: months over all nodes, bounded waits on the workers, and nothing half done."""

import threading
from contextlib import closing
from typing import Any

import psycopg

from support.citus import CitusCluster
from support.cluster import connect_superuser
from support.database import Database
from support.partitions import months
from support.sessions import wait_until

MONTH = "date_trunc('month', now(), 'UTC')"
# 40 models are on all shards.
ROWS = f"""
    INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)
    SELECT {MONTH} + away * interval '1 month' + interval '14 days', 'model ' || n, 'drift', 'psi', away
      FROM unnest(%s::int[]) AS away, generate_series(1, 40) AS n
"""
# The months that each node has shards of.
SHARDS = """
    SELECT array_agg(DISTINCT substring(relname FROM 'monitoring_metrics_(.*)_[0-9]{6}$')
                     ORDER BY substring(relname FROM 'monitoring_metrics_(.*)_[0-9]{6}$'))
      FROM pg_class WHERE relkind = 'r' AND relname ~ 'monitoring_metrics_.*_[0-9]{6}$'
"""
PARTITIONS = """
    SELECT array_agg(substring(partition FROM 'monitoring_metrics_(.*)') ORDER BY 1)
      FROM mlops_internal.metric_partitions()
"""


def assert_nodes_agree(database: Database, cluster: CitusCluster) -> None:
    expected = sorted(database.value(PARTITIONS))
    for worker in cluster.workers:
        assert sorted(on_node(database, worker, SHARDS)[0][0]) == expected


def on_node(database: Database, node: Any, statement: str) -> list[tuple[Any, ...]]:
    """What a statement finds on a worker, where shards are shown."""
    with closing(connect_superuser(node, database.settings.database)) as connection:
        connection.execute("SET citus.override_table_visibility = off")
        return connection.execute(statement).fetchall()


def a_shard(database: Database, node: Any) -> str:
    [(name,)] = on_node(
        database,
        node,
        "SELECT shard_name(logicalrelid, shardid) FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)"
        "  JOIN pg_dist_local_group USING (groupid)"
        " WHERE logicalrelid = 'public.monitoring_metrics'::regclass ORDER BY shardid LIMIT 1",
    )
    return str(name)


def test_months_are_created_filled_and_dropped_on_all_nodes(over_two: Database, two_workers: CitusCluster) -> None:
    over_two.query(ROWS, [[-8, -7, 0, 5]])
    over_two.query("ANALYZE monitoring_metrics")

    done = over_two.run("mlops-db", "maintain")

    assert done.returncode == 0, done.stderr
    assert "8 partitions filled with moved rows" not in done.stdout  # the months between have no rows
    assert "2 partitions filled with moved rows" in done.stdout
    assert_nodes_agree(over_two, two_workers)
    over_two.query("ANALYZE monitoring_metrics")
    dry = over_two.run("mlops-db", "maintain", "--dry-run", "--keep", "6mo")
    planned = {line.split()[1]: line.split()[2:] for line in dry.stdout.splitlines()[1:-1]}
    [first, second] = months(over_two, -8, -7)
    assert planned[first][0] == planned[second][0] == "40"
    assert planned[first][1:] != ["0", "bytes"]
    dropped = over_two.run("mlops-db", "maintain", "--keep", "6mo")
    assert dropped.returncode == 0, dropped.stderr
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == 80
    assert_nodes_agree(over_two, two_workers)
    assert over_two.run("mlops-db", "maintain", "--keep", "6mo").stdout.endswith(": nothing to do.\n")


def test_who_holds_a_shard_on_a_worker_is_named_and_keeps_nobody_waiting(
    over_two: Database, two_workers: CitusCluster
) -> None:
    over_two.query(ROWS, [[-2]])
    worker = two_workers.workers[1]
    shard = a_shard(over_two, worker)
    with closing(connect_superuser(worker, over_two.settings.database)) as reader:
        reader.execute("SET application_name = 'a long report'")
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {shard}")
        done = over_two.run("mlops-db", "maintain", MLOPS_RETRY_FOR="1s")

        assert done.returncode == 1
        error = done.stderr.splitlines()[-2]
        assert error.startswith("error: no lock after")
        assert f"(a long report) on {worker}:5432" in error
        # The locks of the attempts are gone.
        over_two.query("SET lock_timeout = '5s'")
        over_two.query(ROWS, [[0]])
        assert over_two.value("SELECT count(*) FROM monitoring_metrics") == 80
        reader.execute("ROLLBACK")
    assert_nodes_agree(over_two, two_workers)
    assert over_two.run("mlops-db", "maintain").returncode == 0
    assert_nodes_agree(over_two, two_workers)


def test_a_session_that_calls_the_procedure_waits_as_briefly(over_two: Database, two_workers: CitusCluster) -> None:
    over_two.query(ROWS, [[-2]])
    shard = a_shard(over_two, two_workers.workers[0])
    with closing(connect_superuser(two_workers.workers[0], over_two.settings.database)) as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {shard}")
        try:
            over_two.query("CALL mlops_internal.maintain()")
        except psycopg.errors.LockNotAvailable:
            pass
        else:
            raise AssertionError("the reader was overlooked")
        reader.execute("ROLLBACK")
    over_two.query("CALL mlops_internal.maintain()")
    assert_nodes_agree(over_two, two_workers)


def test_killed_in_the_middle_all_nodes_stand_at_the_same_step(over_two: Database, two_workers: CitusCluster) -> None:
    over_two.query(ROWS, [[-4, -3, -2]])
    killer = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE query LIKE '%move_earlier_month%' AND pid <> pg_backend_pid() AND state = 'active'"
    )
    with closing(connect_superuser(two_workers.coordinator, over_two.settings.database)) as superuser:
        ended: list[int] = []
        run = threading.Thread(target=lambda: ended.append(over_two.run("mlops-db", "maintain").returncode))
        run.start()
        wait_until(
            lambda: (True,) in superuser.execute(killer).fetchall(),
            "a month that is being moved",
        )
        run.join()
    assert ended == [1]
    superuser = connect_superuser(two_workers.coordinator, over_two.settings.database)
    with closing(superuser):
        superuser.execute("SELECT recover_prepared_transactions()")
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == 120
    assert_nodes_agree(over_two, two_workers)
    assert over_two.run("mlops-db", "maintain").returncode == 0
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == 120
    assert over_two.value("SELECT count(*) FROM mlops_internal.monitoring_metrics_earlier") == 0
    assert_nodes_agree(over_two, two_workers)


def test_two_at_once_do_the_work_once(over_two: Database, two_workers: CitusCluster) -> None:
    over_two.query(ROWS, [[-2, -1]])
    ended: list[Any] = []
    threads = [threading.Thread(target=lambda: ended.append(over_two.run("mlops-db", "maintain"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [done.returncode for done in ended] == [0, 0], [done.stderr for done in ended]
    moved = [line for done in ended for line in done.stderr.splitlines() if line.startswith("move ")]
    assert sorted(moved) == [f"move {name}" for name in sorted(months(over_two, -2, -1))]
    assert_nodes_agree(over_two, two_workers)


def test_series_and_sequences_are_those_of_all_shards(over_two: Database) -> None:
    over_two.query(ROWS, [[0]])
    over_two.query("DELETE FROM mlops_internal.metric_series WHERE model_name IN ('model 7', 'model 8', 'model 9')")
    over_two.query("SELECT setval('monitoring_metrics_id_seq', 5)")

    assert over_two.value("SELECT count(*) FROM mlops_internal.missing_series(2)") == 2
    done = over_two.run("mlops-db", "maintain")

    assert done.stdout.endswith(": 3 series registered, 1 sequence advanced.\n"), done.stdout + done.stderr
    assert over_two.value("SELECT count(*) FROM mlops_internal.metric_series") == 40
    assert over_two.value("SELECT nextval('monitoring_metrics_id_seq')") == 41
