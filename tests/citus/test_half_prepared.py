"""What a superuser has not done, or not on every node: `mlops-db distribute` names it, as exact SQL."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from support.citus import CitusCluster
from support.cluster import connect_superuser
from support.database import Database
from support.process import assert_failed

NAME, OWNER, LOGIN = "mlops_half", "half_owner", "half_login"
AS_OWNER = {"MLOPS_OWNER_ROLE": OWNER}


def on(node: Path, *statements: str, database: str = NAME) -> None:
    """Run statements on one node alone."""
    with closing(connect_superuser(node, database)) as server:
        server.execute("SET client_min_messages = error")
        if database == NAME:
            server.execute("SET citus.enable_ddl_propagation = off")
        for statement in statements:
            server.execute(statement)


@pytest.fixture
def half(two_workers: CitusCluster) -> Iterator[Database]:
    """A database without tables over two workers; its owner may not log in anywhere, and a login is its member."""
    nodes = (two_workers.coordinator, *two_workers.workers)
    for node in nodes:
        on(node, f"CREATE ROLE {OWNER} NOLOGIN", f"CREATE ROLE {LOGIN} LOGIN NOINHERIT", database="postgres")
        on(node, f"GRANT {OWNER} TO {LOGIN}", database="postgres")
    try:
        with two_workers.database(NAME) as database:
            for node in nodes:
                on(node, f"ALTER DATABASE {NAME} OWNER TO {OWNER}")
            yield replace(database, settings=replace(database.settings, user=LOGIN))
    finally:
        for node in nodes:
            on(node, f"DROP ROLE {LOGIN}", f"DROP ROLE {OWNER}", database="postgres")


@pytest.fixture
def at_head(half: Database, two_workers: CitusCluster) -> Database:
    """The same at head; the owner may log in."""
    for node in (two_workers.coordinator, *two_workers.workers):
        on(node, f"ALTER ROLE {OWNER} LOGIN")
    done = half.run("alembic", "upgrade", "head", **AS_OWNER)
    assert done.returncode == 0, done.stderr
    return half


def test_a_revision_says_that_the_owner_needs_a_login(half: Database) -> None:
    assert_failed(half.run("alembic", "upgrade", "head", **AS_OWNER), f'superuser does: ALTER ROLE "{OWNER}" LOGIN;')


def test_an_owner_without_login_gets_one_on_every_node(at_head: Database, two_workers: CitusCluster) -> None:
    remedy = f'a superuser does: ALTER ROLE "{OWNER}" LOGIN;'
    # Workers alone would lose it again: Citus copies the coordinator's role to each node that is activated.
    on(two_workers.coordinator, f"ALTER ROLE {OWNER} NOLOGIN")
    done = at_head.run("mlops-db", "distribute", **AS_OWNER)
    assert_failed(done, f'role "{OWNER}" may not log in, and', remedy)
    on(two_workers.coordinator, f"ALTER ROLE {OWNER} LOGIN")

    on(two_workers.workers[1], f"ALTER ROLE {OWNER} NOLOGIN")
    done = at_head.run("mlops-db", "distribute", **AS_OWNER)
    assert_failed(done, f'role "{OWNER}" may not log in on worker {two_workers.workers[1]}', remedy)
    on(two_workers.workers[1], f"ALTER ROLE {OWNER} LOGIN")

    for words in ("distribute", "maintain", "status", "check", "undistribute"):
        done = at_head.run("mlops-db", words, **AS_OWNER)
        assert done.returncode == 0, done.stderr
        assert "unreachable" not in done.stdout


def test_the_role_in_force_is_the_one_that_counts(at_head: Database, two_workers: CitusCluster) -> None:
    for worker in two_workers.workers:
        on(worker, f"DROP ROLE {LOGIN}", database="postgres")
    try:
        done = at_head.run("mlops-db", "distribute", PGOPTIONS=f"-c role={OWNER}")
        assert done.returncode == 0, done.stderr
    finally:
        for worker in two_workers.workers:
            on(worker, f"CREATE ROLE {LOGIN} LOGIN", database="postgres")


def test_what_one_worker_lacks_is_named(at_head: Database, two_workers: CitusCluster) -> None:
    worker = two_workers.workers[0]

    def refused(*texts: str) -> None:
        assert_failed(at_head.run("mlops-db", "distribute", **AS_OWNER), "nothing was changed", *texts)

    on(worker, f"ALTER ROLE {OWNER} RENAME TO half_renamed", database="postgres")
    refused(f'worker {worker}:5432 has no role "{OWNER}"', f'CREATE ROLE "{OWNER}" LOGIN;')
    on(worker, f"ALTER ROLE half_renamed RENAME TO {OWNER}", database="postgres")

    # A role of jobs asks the workers itself.
    on(two_workers.coordinator, f"GRANT INSERT ON monitoring_metrics TO {LOGIN}")
    on(worker, f"ALTER ROLE {LOGIN} NOLOGIN")
    refused(f'role "{LOGIN}" may log in on the coordinator, and not on worker', f'ALTER ROLE "{LOGIN}" LOGIN;')
    on(worker, f"ALTER ROLE {LOGIN} LOGIN")
    on(two_workers.coordinator, f"REVOKE ALL ON monitoring_metrics FROM {LOGIN}")

    on(two_workers.coordinator, f"SELECT stop_metadata_sync_to_node('{worker}', 5432)")
    done = at_head.run("mlops-db", "distribute", **AS_OWNER)
    assert_failed(done, "is not synchronised; nothing was changed", "start_metadata_sync_to_node")
    on(two_workers.coordinator, f"SELECT start_metadata_sync_to_node('{worker}', 5432)")

    done = at_head.run("mlops-db", "distribute", **AS_OWNER)
    assert done.returncode == 0, done.stderr


def test_whatever_the_database_sets_tables_are_plain_and_then_in_shards(
    half: Database, two_workers: CitusCluster
) -> None:
    for name, value in (
        ("enable_schema_based_sharding", "on"),
        ("use_citus_managed_tables", "on"),
        ("enable_metadata_sync", "off"),
        ("shard_replication_factor", "2"),
        ("shard_count", "7"),
    ):
        on(two_workers.coordinator, f"ALTER DATABASE {NAME} SET citus.{name} = {value}")
    for node in (two_workers.coordinator, *two_workers.workers):
        on(node, f"ALTER ROLE {OWNER} LOGIN")
    done = half.run("mlops-db", "init", **AS_OWNER)
    assert done.returncode == 0, done.stderr
    assert half.query("SELECT FROM pg_dist_partition") == []
    for words in ("distribute", "check", "maintain"):
        done = half.run("mlops-db", words, **AS_OWNER)
        assert done.returncode == 0, done.stderr
    half.query(f"SET ROLE {OWNER}")
    half.query("INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'a', 1)")
    assert half.value("SELECT count(*) FROM v_recent_monitoring") == 1


def test_tables_that_citus_has_in_another_way_are_named(at_head: Database, two_workers: CitusCluster) -> None:
    on(two_workers.coordinator, "SELECT citus_add_local_table_to_metadata('mlops_internal.metric_series')")
    for words in ("distribute", "undistribute"):
        assert_failed(
            at_head.run("mlops-db", words, **AS_OWNER),
            "mlops_internal.metric_series is managed by Citus on this node; nothing was changed",
            "first: SELECT undistribute_table('mlops_internal.metric_series'); Comments",
            "mlops-db check --sql",
        )
