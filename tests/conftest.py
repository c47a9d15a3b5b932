"""The test server and its databases.

Each worker starts a throwaway server. `--postgresql-exec=/usr/lib/postgresql/15/bin/pg_ctl` chooses its programs; the
default is the embedded server. `--postgresql-host` uses a server that runs already:
`uv run pytest -n 0 --postgresql-host=localhost --postgresql-user=postgres`. The role must be a superuser. Use one
worker (`-n 0`), because all databases of a server share its roles.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import psycopg
import pytest
from hypothesis import settings
from pytest_postgresql import factories

from mlops_db.admin.cluster.distribute import distribute
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.monitoring import Monitoring
from support.citus import CITUS_SETTINGS, prepare_database, stop_daemon
from support.cluster import chosen_programs, throwaway_cluster
from support.copies import drop_database
from support.database import Database

collect_ignore = ["docs/recipes"]  # files for copies of the checkout

# A slow machine is no failure, and a checkout may be another user's.
settings.register_profile("mlops-db", settings.default, deadline=None, database=None)
settings.load_profile("mlops-db")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--distributed",
        action="store_true",
        help="with the Citus of the chosen server: every database has it, and at head it is distributed",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A script that starts this in the background ignores SIGINT, and so would each process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests start processes by the thousand, and each would compile SQLAlchemy and Alembic anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if config.getoption("postgresql_host") is not None:
        return
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # each worker starts a server; this process only distributes the tests
    cluster = ExitStack()
    citus = CITUS_SETTINGS if config.getoption("distributed") else {}
    config.option.postgresql_host = str(cluster.enter_context(throwaway_cluster(chosen_programs(config), **citus)))
    config.option.postgresql_port = 5432
    config.add_cleanup(cluster.close)


def _settings_of(*, host: str, port: int, user: str, dbname: str, password: str | None, **_: Any) -> Settings:
    return Settings(host=host, port=int(port), user=user, password=password, database=dbname)


def _at_head(**server: Any) -> None:
    upgrade(_settings_of(**server))


@contextmanager
def _citus_template(*, host: str, port: int, user: str, dbname: str, password: str | None, **_: Any) -> Iterator[None]:
    """Create the extension; the block does the rest. Then nobody uses the database, and it can be copied."""
    server = {"host": host, "port": port, "user": user, "password": password}
    with closing(psycopg.connect(**server, dbname=dbname, autocommit=True)) as connection:
        prepare_database(connection, shards_here=True)
    yield
    with closing(psycopg.connect(**server, dbname="postgres", autocommit=True)) as connection:
        stop_daemon(connection, dbname)


def _with_citus(**server: Any) -> None:
    with _citus_template(**server):
        pass


def _undistributed(**server: Any) -> None:
    with _citus_template(**server):
        _at_head(**server)


def _distributed(**server: Any) -> None:
    with _citus_template(**server):
        _at_head(**server)
        distribute(_settings_of(**server))


_plain_empty_template = factories.postgresql_noproc(dbname="mlops_test_empty")
_plain_head_template = factories.postgresql_noproc(dbname="mlops_test_head", load=[_at_head])
_citus_empty_template = factories.postgresql_noproc(dbname="mlops_test_citus_empty", load=[_with_citus])
_undistributed_template = factories.postgresql_noproc(dbname="mlops_test_undistributed", load=[_undistributed])
_citus_head_template = factories.postgresql_noproc(dbname="mlops_test_citus_head", load=[_distributed])


@pytest.fixture(scope="session")
def _empty_template(request: pytest.FixtureRequest) -> Any:
    """What databases without anything are copied from."""
    distributed = request.config.getoption("distributed")
    return request.getfixturevalue("_citus_empty_template" if distributed else "_plain_empty_template")


@pytest.fixture(scope="session")
def _head_template(request: pytest.FixtureRequest) -> Any:
    """What databases at head are copied from."""
    distributed = request.config.getoption("distributed")
    return request.getfixturevalue("_citus_head_template" if distributed else "_plain_head_template")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("distributed"):
        return
    for item in items:
        if (marker := item.get_closest_marker("plain_postgresql")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"on a distributed database: {marker.kwargs['reason']}"))


def pytest_collection_finish() -> None:
    # Some tests edit a revision, to the same size within a second, and load it in this process: bytecode would hide it.
    sys.dont_write_bytecode = True


@pytest.fixture
def empty(_empty_template: Any) -> Iterator[Database]:
    """An empty database for this test alone."""
    with _copy_of(_empty_template) as database:
        yield database


@pytest.fixture
def head(_head_template: Any) -> Iterator[Database]:
    """A database at head for this test alone."""
    with _copy_of(_head_template) as database:
        yield database


@pytest.fixture
def undistributed_head(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database at head for this test alone, never distributed: such a one goes down to before its months."""
    distributed = request.config.getoption("distributed")
    with _copy_of(request.getfixturevalue("_undistributed_template" if distributed else "_head_template")) as database:
        yield database


@contextmanager
def _copy_of(template: Any) -> Iterator[Database]:
    def connect(database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=template.host,
            port=template.port,
            user=template.user,
            password=template.password,
            dbname=database,
            autocommit=True,
        )

    # pytest-postgresql's own fixture has no way to choose this. The default since 15, through the log, takes a third
    # longer, which is much for thousands of databases.
    with closing(connect("postgres")) as server:
        strategy = "STRATEGY file_copy" if server.info.server_version >= 150000 else ""
        server.execute(f"CREATE DATABASE {template.dbname} TEMPLATE {template.template_dbname} {strategy}")
    try:
        with closing(connect(template.dbname)) as connection:
            yield Database.of(connection)
    finally:
        with closing(connect("postgres")) as server:
            drop_database(server, template.dbname)


@pytest.fixture
def db(head: Database) -> Iterator[DatabaseManager]:
    """The storage layer on a database at head."""
    with DatabaseManager(head.settings) as manager:
        yield manager


@pytest.fixture
def monitoring(db: DatabaseManager) -> Monitoring:
    """The metrics of the storage layer."""
    return db.monitoring
