"""`mlops-db adopt` of tables that were made by hand, on a database with Citus."""

from collections.abc import Iterator

import pytest

from support.citus import CitusCluster
from support.database import Database
from support.handmade import SPECIFICATION


@pytest.fixture
def handmade(one_node: CitusCluster) -> Iterator[Database]:
    with one_node.database("mlops_handmade", owner="mlops_owner") as database:
        database.query(SPECIFICATION)
        yield database


def test_it_is_adopted_as_on_plain_postgresql_and_distributed_later(handmade: Database) -> None:
    assert handmade.run("mlops-db", "adopt").returncode == 0
    done = handmade.run("alembic", "-x", "legacy-timezone=UTC", "upgrade", "head")
    assert done.returncode == 0, done.stdout
    assert handmade.run("mlops-db", "distribute", "--shards", "4").returncode == 0
    assert ": no difference\n" in handmade.run("mlops-db", "check").stdout


@pytest.mark.parametrize(
    "given",
    [
        "create_distributed_table('monitoring_metrics', 'id')",
        "create_reference_table('monitoring_metrics')",
        "citus_add_local_table_to_metadata('monitoring_metrics')",
    ],
)
def test_tables_that_are_given_to_citus_by_hand_are_refused_until_they_are_not(handmade: Database, given: str) -> None:
    handmade.query(f"SELECT {given}")
    done = handmade.run("mlops-db", "adopt")
    assert done.returncode != 0
    assert done.stderr == (
        "error: monitoring_metrics is in Citus' catalogue already; nothing was changed\n"
        "hint: SELECT undistribute_table('monitoring_metrics'); Then adopt and upgrade. "
        "`mlops-db distribute` distributes the metrics again.\n"
    )
    assert handmade.value("SELECT to_regclass('alembic_version')") is None
    handmade.query("SELECT undistribute_table('monitoring_metrics')")
    assert handmade.run("mlops-db", "adopt").returncode == 0
