"""Servers with Citus: a cluster of throwaway servers, and databases on it."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from mlops_db.settings import Settings
from support.cluster import connect_superuser, postmaster_of, start, throwaway_cluster
from support.copies import drop_database
from support.database import Database
from support.process import lives
from support.sessions import wait_until

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


def has_citus(database: Database) -> bool:
    """Whether the extension is in a database; in a distributed run, it is in each."""
    return bool(database.value("SELECT count(*) FROM pg_extension WHERE extname = 'citus'"))


def stop_daemon(server: psycopg.Connection[Any], database: str) -> None:
    """Let nobody use a database, so that it can be copied: Citus has a process in each one."""
    server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    server.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (database,))


@dataclass(frozen=True)
class CitusCluster:
    """A coordinator and workers, as the folders of their sockets; port 5432, superuser postgres, no passwords."""

    programs: Path
    coordinator: Path
    workers: tuple[Path, ...]

    @contextmanager
    def database(self, name: str, *, owner: str = "postgres") -> Iterator[Database]:
        """A database on all nodes, which the cluster's nodes know, without tables; gives the coordinator's."""
        with ExitStack() as left:
            database = left.enter_context(self.plain_database(name, owner=owner))
            for worker in self.workers:
                left.enter_context(database_on_worker(worker, name, owner=owner))
            with closing(connect_superuser(self.coordinator, name)) as server:
                prepare_database(server, *self.workers, shards_here=not self.workers)
            yield database

    @contextmanager
    def plain_database(self, name: str, *, owner: str) -> Iterator[Database]:
        """A database on the coordinator, without the extension and without tables."""
        _create(self.coordinator, name, owner)
        try:
            settings = Settings(host=str(self.coordinator), port=5432, user=owner, password=None, database=name)
            with closing(
                psycopg.connect(host=settings.host, port=5432, user=owner, dbname=name, autocommit=True)
            ) as connection:
                yield Database(connection, settings)
        finally:
            _drop(self.coordinator, name)


@contextmanager
def database_on_worker(worker: Path, name: str, *, owner: str = "postgres") -> Iterator[None]:
    """Make a database for the block that a coordinator's database can take as a worker."""
    _create(worker, name, owner)
    try:
        with closing(connect_superuser(worker, name)) as server:
            server.execute("SET client_min_messages = warning")
            server.execute("CREATE EXTENSION citus")
            for statement in CLOSE_TIME_PARTITIONS:
                server.execute(statement)
        yield
    finally:
        _drop(worker, name)


def _create(node: Path, database: str, owner: str) -> None:
    with closing(connect_superuser(node)) as server:
        server.execute("SET client_min_messages = warning")
        known = server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)).fetchone()
        if not known:
            server.execute(f"CREATE ROLE {owner} LOGIN")
        server.execute(f"CREATE DATABASE {database} OWNER {owner}")


def _drop(node: Path, database: str) -> None:
    with closing(connect_superuser(node)) as server:
        server.execute("SET client_min_messages = warning")
        drop_database(server, database)


def kill(folder: Path) -> None:
    """Kill a server as a machine does that loses its power: nothing of it is left running."""
    postmaster = psutil.Process(postmaster_of(folder))
    postmaster.suspend()  # so that it starts no other child
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(map(lives, processes)), "the processes of a killed server to end")


def start_again(programs: Path, folder: Path) -> None:
    """Start a server that was killed."""
    for lock in (folder / "data" / "postmaster.pid", folder / ".s.PGSQL.5432.lock"):
        lock.unlink(missing_ok=True)  # nobody may have reaped the process that it names
    start(programs, folder)


@contextmanager
def citus_cluster(programs: Path, *, workers: int, in_memory: bool = True, **settings: str) -> Iterator[CitusCluster]:
    """Run a coordinator and workers during the block; without workers, the coordinator has the shards."""
    with ExitStack() as running:
        coordinator, *others = (
            running.enter_context(throwaway_cluster(programs, in_memory=in_memory, **CITUS_SETTINGS, **settings))
            for _ in range(1 + workers)
        )
        for node in (coordinator, *others):
            with closing(connect_superuser(node)) as server:
                # What a node calls itself; localhost would not do without TCP.
                server.execute(f"ALTER SYSTEM SET citus.local_hostname = '{node}'")
                # Since 2026 a server asks which libraries may decode its log; splitting a shard needs this one.
                if server.execute("SELECT 1 FROM pg_settings WHERE name = 'output_plugin_libraries'").fetchone():
                    server.execute("ALTER SYSTEM SET output_plugin_libraries = pgoutput, citus")
                server.execute("SELECT pg_reload_conf()")
        yield CitusCluster(programs, coordinator, tuple(others))
