"""Servers with Citus: a cluster of throwaway servers, and databases on it."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from mlops_db.settings import Settings
from support.cluster import connect_superuser, throwaway_cluster
from support.database import Database

CITUS_SETTINGS = {
    "shared_preload_libraries": "citus",
    "wal_level": "logical",
    "max_connections": "300",
    "max_prepared_transactions": "300",
    "max_worker_processes": "48",
    "max_replication_slots": "30",
    "max_wal_senders": "30",
    "max_locks_per_transaction": "256",
    "deadlock_timeout": "200ms",
    "citus.enable_statistics_collection": "off",
}
# Whoever reads it crashes the server, because its partitions have bounds without an end.
CLOSE_TIME_PARTITIONS = (
    "REVOKE SELECT ON pg_catalog.time_partitions FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION pg_catalog.time_partition_range(regclass) FROM PUBLIC",
)


def prepare_database(server: psycopg.Connection[Any], *workers: Path, shards_here: bool) -> None:
    """Create the extension in a database, and let its server be the coordinator of workers that have it, too."""
    server.execute("SET client_min_messages = warning")
    server.execute("CREATE EXTENSION citus")
    here = (server.info.host, server.info.port)
    server.execute("SELECT citus_set_coordinator_host(%s, %s)", here)
    server.execute("SELECT citus_set_node_property(%s, %s, 'shouldhaveshards', %s)", (*here, shards_here))
    for worker in workers:
        server.execute("SELECT citus_add_node(%s, 5432)", (str(worker),))
    for statement in CLOSE_TIME_PARTITIONS:
        server.execute(statement)


def stop_daemon(server: psycopg.Connection[Any], database: str) -> None:
    """Let nobody use a database, so that it can be copied: Citus has a process in each one."""
    server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (database,))


def drop_with_daemon(server: psycopg.Connection[Any], database: str) -> None:
    """Drop a database. Its daemon may start once more after DROP has ended it: then again."""
    for _ in range(20):
        stop_daemon(server, database)
        with suppress(psycopg.errors.ObjectInUse):
            server.execute(f"DROP DATABASE {database} WITH (FORCE)")
            return
    server.execute(f"DROP DATABASE {database} WITH (FORCE)")


@dataclass(frozen=True)
class CitusCluster:
    """A coordinator and workers, as the folders of their sockets; port 5432, superuser postgres, no passwords."""

    programs: Path
    coordinator: Path
    workers: tuple[Path, ...]

    @contextmanager
    def database(self, name: str, *, owner: str = "postgres") -> Iterator[Database]:
        """A database on all nodes, which the cluster's nodes know, without tables; gives the coordinator's."""
        nodes = (self.coordinator, *self.workers)
        with ExitStack() as left:
            for node in nodes:
                with closing(connect_superuser(node)) as server:
                    server.execute("SET client_min_messages = warning")
                    if (
                        owner != "postgres"
                        and not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)).fetchone()
                    ):
                        server.execute(f"CREATE ROLE {owner} LOGIN")
                    server.execute(f"CREATE DATABASE {name} OWNER {owner}")
                left.callback(_drop, node, name)
            for worker in self.workers:
                with closing(connect_superuser(worker, name)) as server:
                    server.execute("CREATE EXTENSION citus")
                    for statement in CLOSE_TIME_PARTITIONS:
                        server.execute(statement)
            with closing(connect_superuser(self.coordinator, name)) as server:
                prepare_database(server, *self.workers, shards_here=not self.workers)
            settings = Settings(host=str(self.coordinator), port=5432, user=owner, password=None, database=name)
            with closing(
                psycopg.connect(host=settings.host, port=5432, user=owner, dbname=name, autocommit=True)
            ) as connection:
                yield Database(connection, settings)


def _drop(node: Path, database: str) -> None:
    with closing(connect_superuser(node)) as server:
        server.execute("SET client_min_messages = warning")
        drop_with_daemon(server, database)


@contextmanager
def citus_cluster(programs: Path, *, workers: int, in_memory: bool = True, **settings: str) -> Iterator[CitusCluster]:
    """Run a coordinator and workers during the block; without workers, the coordinator has the shards."""
    with ExitStack() as running:
        coordinator, *others = (
            running.enter_context(throwaway_cluster(programs, in_memory=in_memory, **CITUS_SETTINGS, **settings))
            for _ in range(1 + workers)
        )
        yield CitusCluster(programs, coordinator, tuple(others))
