"""The test server and its databases.

Each worker starts a server of its own: of the embedded one's programs, or of those beside that of
`--postgresql-exec=/usr/lib/postgresql/15/bin/pg_ctl`. With `--postgresql-host` a server of yours is used:
`uv run pytest -n 0 --postgresql-host=localhost --postgresql-user=postgres`. Its role has to be a superuser, and two
workers cannot share it: roles are the whole server's.
"""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_postgresql import factories

from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.monitoring import Monitoring
from support.cluster import embedded_programs, throwaway_cluster
from support.database import Database


def pytest_configure(config: pytest.Config) -> None:
    # Ignored where a script has started this in the background; and so it would be by each process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("postgresql_host") is not None:
        return
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # each worker has a server of its own; this process only hands out the tests
    pg_ctl = config.getoption("postgresql_exec")
    programs = embedded_programs() if pg_ctl is None else Path(pg_ctl).parent
    cluster = ExitStack()
    config.option.postgresql_host = str(cluster.enter_context(throwaway_cluster(programs)))
    config.option.postgresql_port = 5432
    config.add_cleanup(cluster.close)


def _at_head(*, host: str, port: int, user: str, dbname: str, password: str | None, **_: Any) -> None:
    upgrade(Settings(host=host, port=int(port), user=user, password=password, database=dbname))


_empty_template = factories.postgresql_noproc(dbname="mlops_test_empty")
_head_template = factories.postgresql_noproc(dbname="mlops_test_head", load=[_at_head])
_empty_connection = factories.postgresql("_empty_template")
_head_connection = factories.postgresql("_head_template")


@pytest.fixture
def empty(_empty_connection: psycopg.Connection[Any]) -> Database:
    """A database of its own, with nothing in it."""
    return Database.of(_empty_connection)


@pytest.fixture
def head(_head_connection: psycopg.Connection[Any]) -> Database:
    """A database of its own, at head."""
    return Database.of(_head_connection)


@pytest.fixture
def db(head: Database) -> Iterator[DatabaseManager]:
    """The storage layer on a database of its own."""
    with DatabaseManager(head.settings) as manager:
        yield manager


@pytest.fixture
def monitoring(db: DatabaseManager) -> Monitoring:
    """Its metrics."""
    return db.monitoring
