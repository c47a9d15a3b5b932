"""Limits of connections: a session that was closed may count for a moment, and one that stays is an error."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import TooManyConnectionsError
from mlops_db.server.connection import LIMIT_PATIENCE_S, connect, open_cursor
from mlops_db.settings import Settings
from support.database import Database
from support.process import SECRET, assert_failed

pytestmark = pytest.mark.full_postgresql

ROLE = "mlops_test_limited"


@pytest.fixture
def limited(head: Database) -> Iterator[Settings]:
    """A role that may have one connection."""
    head.query(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 1")
    head.query(f"GRANT SELECT ON alembic_version TO {ROLE}")
    yield replace(head.settings, user=ROLE, password=SECRET)
    head.query(f"DROP OWNED BY {ROLE}")
    head.query(f"DROP ROLE {ROLE}")


def hold_connection(settings: Settings) -> psycopg.Connection:
    return psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password,
        dbname=settings.database,
    )


def ask(settings: Settings) -> None:
    with DatabaseManager(settings) as db:
        db.execute_query("SELECT 1")


def ping(settings: Settings, timeout: float = 10) -> None:
    with DatabaseManager(settings) as db:
        db.ping(timeout)


def test_one_connection_after_the_other_is_enough(limited: Settings) -> None:
    for _ in range(50):
        with open_cursor(limited) as cursor:
            cursor.execute("SELECT 1")


@pytest.mark.parametrize("use", [lambda settings: connect(settings).close(), ask, ping], ids=["command", "job", "ping"])
def test_it_waits_for_a_session_that_ends(limited: Settings, use: Callable[[Settings], None]) -> None:
    holder = hold_connection(limited)
    ending = threading.Timer(0.5, holder.close)
    ending.start()
    use(limited)
    assert holder.closed
    ending.join()


def assert_refused(head: Database, limited: Settings, limit: str) -> None:
    result = head.run("mlops-db", "status", POSTGRES_USER=limited.user, POSTGRES_PASSWORD=SECRET)
    assert result.returncode == 2
    assert_failed(result, f'too many connections for {limit} "', "CONNECTION LIMIT")


def test_the_limit_of_a_role_that_stays_reached_is_one_line(head: Database, limited: Settings) -> None:
    with closing(hold_connection(limited)):
        assert_refused(head, limited, "role")


@pytest.mark.slow
def test_the_limit_of_a_database_that_stays_reached_is_one_line(head: Database, limited: Settings) -> None:
    head.query(f'ALTER DATABASE "{limited.database}" CONNECTION LIMIT 0')
    try:
        assert_refused(head, limited, "database")
    finally:
        head.query(f'ALTER DATABASE "{limited.database}" CONNECTION LIMIT -1')


def test_a_ping_that_ends_before_the_patience_names_the_limit(limited: Settings) -> None:
    with closing(hold_connection(limited)), pytest.raises(TooManyConnectionsError):
        ping(limited, LIMIT_PATIENCE_S * 0.75)


@pytest.mark.slow
@pytest.mark.parametrize("use", [connect, ask, ping])
def test_the_error_of_a_limit_may_be_retried(limited: Settings, use: Callable[[Settings], object]) -> None:
    with closing(hold_connection(limited)), pytest.raises(TooManyConnectionsError) as refused:
        use(limited)
    assert refused.value.retryable
