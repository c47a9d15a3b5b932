"""`mlops-db grant-reader` on Citus: the views on the coordinator, and what they need on the workers, there only."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from support.citus import CitusCluster
from support.cluster import connect_superuser
from support.database import Database
from support.process import assert_failed

ROLE = "mlops_test_reader"
READS = (
    "SELECT * FROM v_recent_monitoring",
    "SELECT * FROM v_recent_monitoring WHERE model_name = 'model 1'",
    "SELECT * FROM reporting.metric_history",
    "SELECT * FROM reporting.metric_daily(now() - interval '90 days')",
)
LOCAL_READS = (
    "SELECT * FROM v_decision_history",
    "SELECT * FROM v_model_timeline",
    "SELECT * FROM reporting.production_periods",
    "SELECT * FROM reporting.decision_gates",
)
REFUSED = (
    "SELECT * FROM monitoring_metrics",
    "SELECT * FROM mlops_internal.metric_series",
    "SELECT * FROM model_versions",
    "SELECT mlops_internal.register_missing_series()",
    "DELETE FROM monitoring_metrics",
)
ROWS = """
    INSERT INTO monitoring_metrics (model_name, metric_type, metric_name, metric_value)
    SELECT 'model ' || n, 'drift', 'psi', 1 FROM generate_series(1, 40) AS n
"""


def make_role(cluster: CitusCluster, database: Database, attributes: str = "LOGIN") -> None:
    with closing(connect_superuser(cluster.coordinator, database.settings.database)) as superuser:
        superuser.execute(f"CREATE ROLE {ROLE} {attributes}")


def drop_role(cluster: CitusCluster, database: Database) -> None:
    with closing(connect_superuser(cluster.coordinator, database.settings.database)) as superuser:
        if superuser.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone():
            superuser.execute(f"DROP OWNED BY {ROLE}")
            superuser.execute(f"DROP ROLE {ROLE}")


@pytest.fixture
def reader(over_two: Database, two_workers: CitusCluster) -> Iterator[Database]:
    """A database over two workers whose reader was granted."""
    over_two.query(ROWS)
    make_role(two_workers, over_two)
    try:
        done = over_two.run("mlops-db", "grant-reader", ROLE)
        assert done.returncode == 0, done.stderr
        yield over_two
    finally:
        drop_role(two_workers, over_two)


def as_reader(node: Any, database: Database, statement: str, *, role: str = ROLE) -> list[tuple[Any, ...]]:
    settings = database.settings
    with closing(psycopg.connect(host=str(node), port=5432, user=role, dbname=settings.database)) as connection:
        return connection.execute(statement).fetchall()


def assert_reads_views_alone(cluster: CitusCluster, database: Database) -> None:
    for statement in READS:
        rows = as_reader(cluster.coordinator, database, statement)
        assert len(rows) == (1 if "'model 1'" in statement else 40), statement
    for statement in LOCAL_READS:
        as_reader(cluster.coordinator, database, statement)
    for statement in REFUSED:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_reader(cluster.coordinator, database, statement)


def test_it_reads_the_views_and_nothing_else(reader: Database, two_workers: CitusCluster) -> None:
    assert_reads_views_alone(two_workers, reader)
    again = reader.run("mlops-db", "grant-reader", ROLE)
    assert again.returncode == 0, again.stderr
    assert reader.run("mlops-db", "check").returncode == 0


def test_who_read_before_reads_after(undistributed_over_two: Database, two_workers: CitusCluster) -> None:
    database = undistributed_over_two
    database.query(ROWS)
    make_role(two_workers, database, "NOLOGIN")
    login = f"{ROLE}'s $do$ login"
    with closing(connect_superuser(two_workers.coordinator, database.settings.database)) as superuser:
        superuser.execute(f'CREATE ROLE "{login}" LOGIN')
        superuser.execute(f'GRANT {ROLE} TO "{login}"')
    try:
        for role in (ROLE, login):
            done = database.run("mlops-db", "grant-reader", role)
            assert done.returncode == 0, done.stderr
        for _ in range(2):  # the second run has nothing to distribute
            done = database.run("mlops-db", "distribute")
            assert done.returncode == 0, done.stderr
            for statement in READS:
                assert as_reader(two_workers.coordinator, database, statement, role=login), statement
            for worker in two_workers.workers:
                revoke_on_worker(worker, database, ROLE, login)
    finally:
        with closing(connect_superuser(two_workers.coordinator, database.settings.database)) as superuser:
            superuser.execute(f'DROP OWNED BY "{login}"')
            superuser.execute(f'DROP ROLE "{login}"')
        drop_role(two_workers, database)


def revoke_on_worker(worker: Any, database: Database, *roles: str) -> None:
    """Leave the roles there with as little as on a worker that was added later."""
    with closing(connect_superuser(worker, database.settings.database)) as superuser:
        superuser.execute("SET citus.enable_ddl_propagation = off")
        for role in roles:
            superuser.execute(f'REVOKE SELECT ON ALL TABLES IN SCHEMA public, mlops_internal FROM "{role}"')


def test_new_months_and_moved_shards_keep_it(reader: Database, two_workers: CitusCluster) -> None:
    for month in (-3, 5):
        reader.query(
            "INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)"
            " SELECT now() + %s * interval '1 month', 'model ' || n, 'drift', 'psi', 1"
            "   FROM generate_series(1, 40) AS n",
            [month],
        )
    done = reader.run("mlops-db", "maintain")
    assert done.returncode == 0, done.stderr
    reader.query("DELETE FROM monitoring_metrics WHERE timestamp < now() - interval '1 month' OR timestamp > now()")
    source, target = map(str, two_workers.workers)
    with closing(connect_superuser(two_workers.coordinator, reader.settings.database)) as superuser:
        superuser.execute(f"SET citus.local_hostname = '{two_workers.coordinator}'")
        superuser.execute(
            "SELECT citus_move_shard_placement(shardid, %s, 5432, %s, 5432, 'block_writes')"
            "  FROM pg_dist_shard_placement JOIN pg_dist_shard USING (shardid)"
            " WHERE nodename = %s AND logicalrelid = 'public.monitoring_metrics'::regclass",
            (source, target, source),
        )

    assert_reads_views_alone(two_workers, reader)


def test_on_a_worker_it_reads_the_rows_that_the_views_show(reader: Database, two_workers: CitusCluster) -> None:
    worker = two_workers.workers[0]
    shards = (
        "SELECT shard_name(logicalrelid, shardid) FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)"
        " JOIN pg_dist_local_group USING (groupid) WHERE logicalrelid = 'public.monitoring_metrics'::regclass"
    )
    found = as_reader(worker, reader, shards)
    assert len(found) == 4
    for (shard,) in found:
        as_reader(worker, reader, f"SELECT * FROM {shard}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_reader(worker, reader, f"DELETE FROM {shard} RETURNING 1")


def test_it_goes_with_what_was_granted(reader: Database, two_workers: CitusCluster) -> None:
    drop_role(two_workers, reader)
    for node in (two_workers.coordinator, *two_workers.workers):
        with closing(connect_superuser(node, reader.settings.database)) as superuser:
            assert superuser.execute("SELECT count(*) FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone() == (0,)


def test_a_role_that_the_workers_lack_is_refused(over_two: Database, two_workers: CitusCluster) -> None:
    with closing(connect_superuser(two_workers.coordinator)) as elsewhere:  # without Citus, which would create it there
        elsewhere.execute(f"CREATE ROLE {ROLE} LOGIN")
        try:
            done = over_two.run("mlops-db", "grant-reader", ROLE)
            assert_failed(done, f'has no role "{ROLE}"; nothing was changed', "CREATE ROLE")
        finally:
            elsewhere.execute(f"DROP ROLE {ROLE}")


def test_a_role_is_created_on_all_nodes(over_two: Database, two_workers: CitusCluster) -> None:
    nodes = (two_workers.coordinator, *two_workers.workers)
    for node in nodes:
        with closing(connect_superuser(node)) as superuser:
            superuser.execute(f"ALTER ROLE {over_two.settings.user} CREATEROLE")
    try:
        done = over_two.run("mlops-db", "grant-reader", "--create", ROLE, MLOPS_READER_PASSWORD="reader's")  # noqa: S106
        assert done.returncode == 0, done.stderr
        assert as_reader(two_workers.coordinator, over_two, READS[0]) == []
    finally:
        drop_role(two_workers, over_two)
        for node in nodes:
            with closing(connect_superuser(node)) as superuser:
                superuser.execute(f"ALTER ROLE {over_two.settings.user} NOCREATEROLE")


def test_a_coordinator_with_shards(distributed: Database, one_node: CitusCluster) -> None:
    distributed.query(ROWS)
    make_role(one_node, distributed)
    try:
        done = distributed.run("mlops-db", "grant-reader", ROLE)
        assert done.returncode == 0, done.stderr
        assert len(as_reader(one_node.coordinator, distributed, READS[0])) == 40
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_reader(one_node.coordinator, distributed, REFUSED[0])
    finally:
        drop_role(one_node, distributed)
