"""The fixtures, which pytest finds by the entry point of the package.

Every pytest of an environment loads this module. So it imports nothing but pytest until a fixture is used, and adds no
option, marker or line to suites that use none.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from mlops_db.errors import MlopsDbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlops_db.settings import Settings
    from mlops_db.storage.db_manager import DatabaseManager
    from mlops_db.testing.databases import Databases


@pytest.fixture
def mlops_db(mlops_db_settings: Settings) -> Iterator[DatabaseManager]:
    """A DatabaseManager on a fresh database at head, for this test alone.

    During the test, `get_db_manager()`, and processes that the test starts, use the same database.
    """
    from mlops_db.storage.db_manager import DatabaseManager  # noqa: PLC0415  (only where the fixture is used)

    with DatabaseManager(mlops_db_settings) as manager:
        yield manager


@pytest.fixture
def mlops_db_settings(_mlops_db_databases: Databases, _mlops_db_head: str) -> Iterator[Settings]:
    """The Settings of the database that `mlops_db` uses."""
    with _copy_for_test(_mlops_db_databases, _mlops_db_head) as settings:
        yield settings


@pytest.fixture
def mlops_db_demo(_mlops_db_databases: Databases, _mlops_db_filled: str) -> Iterator[DatabaseManager]:
    """A DatabaseManager like `mlops_db`, on a database with 90 days of made-up versions, decisions and metrics."""
    from mlops_db.storage.db_manager import DatabaseManager  # noqa: PLC0415  (only where the fixture is used)

    with _copy_for_test(_mlops_db_databases, _mlops_db_filled) as settings, DatabaseManager(settings) as manager:
        yield manager


@pytest.fixture(scope="session")
def mlops_db_prepare() -> Callable[[Settings], object] | None:
    """Override this in conftest.py to add your own tables: return a function that takes the database's Settings.

    It is called once a session, on the database at head that all others are copied from.
    """
    return None


@pytest.fixture(scope="session")
def _mlops_db_databases(pytestconfig: pytest.Config) -> Iterator[Databases]:
    """The server, and this session's databases on it."""
    plugins = pytestconfig.pluginmanager
    # With -p, a plugin has the name of its module.
    if not (plugins.hasplugin("pytest_postgresql") or plugins.hasplugin("pytest_postgresql.plugin")):
        raise _failure("the fixtures of mlops-db need pytest-postgresql", "Run `pip install 'mlops-db[testing]'`.")
    from mlops_db.testing.databases import Databases  # noqa: PLC0415  (only where a fixture is used)
    from mlops_db.testing.server import open_server  # noqa: PLC0415  (the same)

    with _one_line_errors(), open_server(pytestconfig) as server:
        databases = Databases(server)
        yield databases
        databases.drop_templates()


@pytest.fixture(scope="session")
def _mlops_db_head(_mlops_db_databases: Databases, mlops_db_prepare: Callable[[Settings], object] | None) -> str:
    """The template at head."""
    from mlops_db.migration.commands import upgrade  # noqa: PLC0415  (only where a fixture is used)

    with _one_line_errors():
        template = _mlops_db_databases.make_template("head")
        _mlops_db_databases.change_template(template, upgrade)
    if mlops_db_prepare is not None:  # its errors keep their traceback
        _mlops_db_databases.change_template(template, mlops_db_prepare)
    return template


@pytest.fixture(scope="session")
def _mlops_db_filled(_mlops_db_databases: Databases, _mlops_db_head: str) -> str:
    """The template with the rows of the demo."""
    from mlops_db.testing.databases import fill_demo  # noqa: PLC0415  (only where a fixture is used)

    with _one_line_errors():
        template = _mlops_db_databases.make_template("demo", source=_mlops_db_head)
        _mlops_db_databases.change_template(template, fill_demo)
    return template


@contextmanager
def _copy_for_test(databases: Databases, template: str) -> Iterator[Settings]:
    with _one_line_errors(), databases.copy(template) as settings:
        yield settings


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Report errors of ours without a traceback."""
    try:
        yield
    except MlopsDbError as error:
        raise _failure(error.message, error.hint) from None


def _failure(message: str, hint: str) -> BaseException:
    return pytest.fail.Exception(f"{message}\nhint: {hint}", pytrace=False)
