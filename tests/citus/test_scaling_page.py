"""The statements of docs/scaling.md about a cluster, as they stand there; the owner is no superuser."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg
import pytest

from support.citus import CITUS_SETTINGS
from support.cluster import connect_superuser, throwaway_cluster
from support.database import ROOT, SCRIPTS, clean_environment, client, run_command

PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
DATABASE = "mlops"
NAMES = ("coordinator", "worker-1", "worker-2", "worker-3")
ROWS = """
INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)
SELECT now() - i * interval '1 minute', CASE WHEN mod(i, 2) = 0 THEN 'churn' ELSE 'model_' || mod(i, 40) END,
       'drift', 'metric_' || mod(i, 5), i FROM generate_series(1, 20000) AS i
"""


def block(name: str) -> str:
    (found,) = re.findall(rf"^ *```\w+ {name}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def nodes(citus_programs: Path) -> Iterator[dict[str, Path]]:
    """Servers by the names that the page gives them, with the owner's role; the last one is not added."""
    with ExitStack() as running:
        nodes = {name: running.enter_context(throwaway_cluster(citus_programs, **CITUS_SETTINGS)) for name in NAMES}
        for node in nodes.values():
            with closing(connect_superuser(node)) as server:
                server.execute(f"ALTER SYSTEM SET citus.local_hostname = '{node}'")  # not TCP, as all of these servers
                server.execute("SELECT pg_reload_conf()")
                server.execute("CREATE ROLE mlops_owner LOGIN")
        yield nodes


@pytest.fixture(scope="module")
def statements(nodes: dict[str, Path]) -> Callable[..., list[Any]]:
    """Runs a block of SQL on a node as a superuser, and gives the rows of its last query."""

    def run(name: str, where: str = "coordinator", database: str = DATABASE) -> list[Any]:
        rows: list[Any] = []
        with closing(connect_superuser(nodes[where], database)) as server:
            server.execute("SET client_min_messages = warning")
            for statement in block(name).split(";"):
                text = re.sub(r"'(coordinator|worker-\d)'", lambda match: f"'{nodes[match[1]]}'", statement)
                if text.strip():
                    done = server.execute(text)
                    rows = [] if done.description is None else done.fetchall()
        return rows

    return run


@pytest.fixture(scope="module")
def cluster(nodes: dict[str, Path], statements: Callable[..., list[Any]]) -> dict[str, Path]:
    """The page's cluster, with rows of 40 models."""
    for name in NAMES:
        statements("database", name, database="postgres")
        statements("every-node", name)
    statements("coordinator")
    done = _shell(block("distribute"), nodes)
    assert done.returncode == 0, done.stderr
    with _owner(nodes) as owner:
        owner.execute(ROWS)
    return nodes


def _shell(script: str, nodes: dict[str, Path], **more: str) -> CompletedProcess[str]:
    path = os.pathsep.join([str(SCRIPTS), str(Path(client("psql")).parent), "/usr/bin", "/bin"])
    environment = clean_environment(
        PATH=path, POSTGRES_HOST=str(nodes["coordinator"]), POSTGRES_USER="mlops_owner", MLOPS_DB_NAME=DATABASE, **more
    )
    return run_command("bash", "-euo", "pipefail", "-c", script, environment=environment)


def _owner(nodes: dict[str, Path]) -> psycopg.Connection[Any]:
    return psycopg.connect(host=str(nodes["coordinator"]), user="mlops_owner", dbname=DATABASE, autocommit=True)


def _shards(nodes: dict[str, Path]) -> dict[str, int]:
    """How many shards of the catalogue of series each node has, by the name of the node."""
    with closing(connect_superuser(nodes["coordinator"], DATABASE)) as server:
        found = server.execute(
            "SELECT nodename, count(*) FROM citus_shards WHERE table_name = 'mlops_internal.metric_series'::regclass"
            " GROUP BY nodename"
        ).fetchall()
    hosts = {str(folder): name for name, folder in nodes.items()}
    return {hosts[host]: count for host, count in found}


def _are_whole(nodes: dict[str, Path]) -> None:
    """No row is lost or doubled, and the view answers."""
    with _owner(nodes) as owner:
        rows = owner.execute("SELECT count(*), count(DISTINCT id) FROM monitoring_metrics").fetchone()
        series = owner.execute("SELECT count(*) FROM v_recent_monitoring WHERE id IS NOT NULL").fetchone()
        all_of_them = owner.execute(
            "SELECT count(*) FROM (SELECT DISTINCT model_name, metric_type, metric_name FROM monitoring_metrics) AS s"
        ).fetchone()
    assert rows == (20_000, 20_000)
    assert series == all_of_them


def test_the_steps_of_the_page_one_after_the_other(
    cluster: dict[str, Path], statements: Callable[..., list[Any]]
) -> None:
    assert _shards(cluster) == {"worker-1": 4, "worker-2": 4}

    statements("add-worker")
    done = _shell("mlops-db distribute", cluster)
    assert done.returncode == 0, done.stderr
    statements("rebalance")
    assert sum(_shards(cluster).values()) == 8
    assert _shards(cluster).get("worker-3")
    _are_whole(cluster)

    statements("drain")
    assert set(_shards(cluster)) == {"worker-1", "worker-2"}
    _are_whole(cluster)

    with closing(connect_superuser(cluster["coordinator"])) as server:
        has_setting = server.execute("SELECT current_setting('output_plugin_libraries', true)").fetchone() != (None,)
    for name in NAMES if has_setting else ():
        statements("output-plugin", name)
    statements("one-model")
    with closing(connect_superuser(cluster["coordinator"], DATABASE)) as server:
        found = server.execute(
            "SELECT nodename FROM citus_shards"
            " WHERE shardid = get_shard_id_for_distribution_column('public.monitoring_metrics', 'churn')"
        ).fetchall()
    assert found == [(str(cluster["worker-2"]),)]
    _are_whole(cluster)

    assert statements("restore-point")
    done = _shell(f"{block('undistribute')}mlops-db check", cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(": no difference\n")
    _are_whole(cluster)
