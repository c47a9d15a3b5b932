"""The script that the profile `citus` of docker-compose.yml runs first, on servers of its own."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mlops_db.migration.commands import upgrade
from support.citus import CITUS_SETTINGS
from support.cluster import connect_superuser, settings_of, throwaway_cluster
from support.database import ROOT, Database, clean_environment, client, run_command

DATABASE = 'prepared "one"'


@pytest.fixture(scope="module")
def nodes(citus_programs: Path) -> Iterator[list[Path]]:
    """Three servers that know nothing of each other."""
    with ExitStack() as running:
        yield [running.enter_context(throwaway_cluster(citus_programs, **CITUS_SETTINGS)) for _ in range(3)]


@pytest.fixture(scope="module")
def prepared(nodes: list[Path]) -> list[CompletedProcess[str]]:
    """The runs of the script: at the first start, and at the second one."""
    return [_prepare(nodes) for _ in range(2)]


def _prepare(nodes: list[Path]) -> CompletedProcess[str]:
    path = f"{Path(client('psql')).parent}{os.pathsep}/usr/bin{os.pathsep}/bin"
    environment = clean_environment(PATH=path, PGUSER="postgres", MLOPS_DB_NAME=DATABASE)
    return run_command("bash", str(ROOT / "citus" / "prepare.sh"), *map(str, nodes), environment=environment)


def test_it_runs_again_at_the_next_start(nodes: list[Path], prepared: list[CompletedProcess[str]]) -> None:
    coordinator, *workers = map(str, nodes)
    said = f"{coordinator} coordinates {' '.join(workers)} in database {DATABASE}\n"
    assert [(done.returncode, done.stdout, done.stderr) for done in prepared] == [(0, said, "")] * 2


@pytest.mark.usefixtures("prepared")
def test_the_coordinator_knows_its_workers_and_has_no_shards(nodes: list[Path]) -> None:
    with closing(connect_superuser(nodes[0], DATABASE)) as coordinator:
        found = coordinator.execute("SELECT nodename, isactive, shouldhaveshards FROM pg_dist_node").fetchall()
    coordinator_host, *workers = map(str, nodes)
    assert sorted(found) == sorted([(coordinator_host, True, False), *((worker, True, True) for worker in workers)])


@pytest.mark.usefixtures("prepared")
def test_nobody_may_read_what_crashes_a_server(nodes: list[Path]) -> None:
    for node in nodes:
        with closing(connect_superuser(node, DATABASE)) as server:
            server.execute("SET citus.enable_ddl_propagation = off")
            server.execute("CREATE ROLE somebody")
            may = server.execute(
                "SELECT has_table_privilege('somebody', 'pg_catalog.time_partitions', 'SELECT'),"
                " has_function_privilege('somebody', 'pg_catalog.time_partition_range(regclass)', 'EXECUTE')"
            ).fetchone()
            server.execute("DROP ROLE somebody")
        assert may == (False, False)


@pytest.mark.usefixtures("prepared")
def test_nothing_is_left_to_do_for_a_superuser(nodes: list[Path]) -> None:
    settings = settings_of(nodes[0], DATABASE)
    upgrade(settings)
    with closing(connect_superuser(nodes[0], DATABASE)) as connection:
        database = Database(connection, settings)
        done = database.run("mlops-db", "distribute")
        assert done.returncode == 0, done.stderr
        assert database.value("SELECT count(*) FROM v_recent_monitoring") == 0
