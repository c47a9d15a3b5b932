"""`mlops-db grant-writer` and `--revoke` on Citus: what a role may do on the shards, and what it may not any more."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from mlops_db import DatabaseManager
from support.calls_of_jobs import make_calls
from support.citus import CitusCluster
from support.cluster import connect_superuser
from support.database import Database

ROLE = 'mlops "Role" ü'
QUOTED = '"mlops ""Role"" ü"'
# What the role has on a node, also on shards, and by default on those that come.
GRANTED = """
    SELECT count(*) FROM (
        SELECT relacl AS acl FROM pg_class UNION ALL SELECT attacl FROM pg_attribute
         UNION ALL SELECT proacl FROM pg_proc UNION ALL SELECT nspacl FROM pg_namespace
         UNION ALL SELECT defaclacl FROM pg_default_acl
    ) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS acl
     WHERE acl.grantee = (SELECT oid FROM pg_roles WHERE rolname = %s)
"""


@pytest.fixture(params=["over_two", "distributed"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[CitusCluster, Database]]:
    """A cluster with its distributed database, where the role exists: over two workers, and on the coordinator."""
    database = request.getfixturevalue(request.param)
    cluster = request.getfixturevalue("two_workers" if request.param == "over_two" else "one_node")
    with as_superuser(cluster, database) as superuser:
        superuser.execute(f"CREATE ROLE {QUOTED} LOGIN")
    yield cluster, database
    with as_superuser(cluster, database) as superuser:
        superuser.execute(f"DROP OWNED BY {QUOTED}")
        superuser.execute(f"DROP ROLE {QUOTED}")


def as_superuser(cluster: CitusCluster, database: Database) -> closing[psycopg.Connection]:
    return closing(connect_superuser(cluster.coordinator, database.settings.database))


def granted(cluster: CitusCluster, database: Database) -> int:
    """How much the role has on all nodes."""
    total = 0
    for node in (cluster.coordinator, *cluster.workers):
        with closing(connect_superuser(node, database.settings.database)) as superuser:
            superuser.execute("SET citus.override_table_visibility = off")
            total += superuser.execute(GRANTED, (ROLE,)).fetchone()[0]  # type: ignore[index]
    return total


@pytest.mark.parametrize("kind", ["reader", "writer"])
def test_revoke_takes_back_what_is_on_the_nodes(place: tuple[CitusCluster, Database], kind: str) -> None:
    cluster, database = place
    before = granted(cluster, database)
    for _ in range(2):
        done = database.run("mlops-db", f"grant-{kind}", ROLE)
        assert done.returncode == 0, done.stderr
    if kind == "writer":
        with DatabaseManager(replace(database.settings, user=ROLE)) as db:
            assert make_calls(db) == {}
    assert "theirs: grants" not in database.run("mlops-db", "check").stdout
    assert granted(cluster, database) > before

    for lost in ("any more: it lost", "Nothing was changed."):
        done = database.run("mlops-db", f"grant-{kind}", ROLE, "--revoke")
        assert (done.returncode, lost in done.stdout) == (0, True), done.stdout + done.stderr

    assert granted(cluster, database) == before


def test_revoke_leaves_another_grant_on_the_shards(place: tuple[CitusCluster, Database]) -> None:
    cluster, database = place
    assert database.run("mlops-db", "grant-reader", ROLE).returncode == 0
    database.query(f"GRANT SELECT ON monitoring_metrics TO {QUOTED}")
    assert database.run("mlops-db", "grant-reader", ROLE, "--revoke").returncode == 0

    with closing(
        psycopg.connect(host=str(cluster.coordinator), user=ROLE, dbname=database.settings.database)
    ) as connection:
        assert connection.execute("SELECT count(*) FROM monitoring_metrics").fetchall() == [(0,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM v_recent_monitoring")


def test_a_writer_stays_one_when_the_tables_are_distributed_and_brought_back(
    undistributed_over_two: Database, two_workers: CitusCluster
) -> None:
    database = undistributed_over_two
    with as_superuser(two_workers, database) as superuser:
        superuser.execute(f"CREATE ROLE {QUOTED} LOGIN")
    try:
        assert database.run("mlops-db", "grant-writer", ROLE).returncode == 0
        for command in ("distribute", "undistribute"):
            done = database.run("mlops-db", command)
            assert done.returncode == 0, done.stderr
            with DatabaseManager(replace(database.settings, user=ROLE)) as db:
                for failed in make_calls(db).items():
                    # The second time, what the first one left is in the way of some, but no privilege is missing.
                    assert "permission denied" not in str(failed), failed
            assert "lacks" not in database.run("mlops-db", "roles").stdout
    finally:
        with as_superuser(two_workers, database) as superuser:
            superuser.execute(f"DROP OWNED BY {QUOTED}")
            superuser.execute(f"DROP ROLE {QUOTED}")
