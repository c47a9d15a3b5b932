"""Limits of connections: a session that was closed may count for a moment, and one that stays is an error."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from mlops_db.errors import TooManyConnectionsError
from mlops_db.server.connection import connect, open_cursor
from mlops_db.settings import Settings
from support.database import Database
from support.process import SECRET, assert_failed

pytestmark = pytest.mark.full_postgresql

ROLE = "mlops_test_limited"


@pytest.fixture
def limited(empty: Database) -> Iterator[Settings]:
    """A role that may have one connection."""
    empty.query(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{SECRET}' CONNECTION LIMIT 1")
    yield replace(empty.settings, user=ROLE, password=SECRET)
    empty.query(f"DROP ROLE {ROLE}")


def hold_connection(settings: Settings) -> psycopg.Connection:
    return psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password,
        dbname=settings.database,
    )


def test_one_connection_after_the_other_is_enough(limited: Settings) -> None:
    for _ in range(50):
        with open_cursor(limited) as cursor:
            cursor.execute("SELECT 1")


def test_a_command_waits_for_a_session_that_ends(limited: Settings) -> None:
    holder = hold_connection(limited)
    ending = threading.Timer(0.2, holder.close)
    ending.start()
    with closing(connect(limited)):
        assert holder.closed
    ending.join()


def assert_refused(empty: Database, limited: Settings, limit: str) -> None:
    result = empty.run("mlops-db", "status", POSTGRES_USER=limited.user, POSTGRES_PASSWORD=SECRET)
    assert result.returncode == 2
    assert_failed(result, f'too many connections for {limit} "', "CONNECTION LIMIT")


def test_the_limit_of_a_role_that_stays_reached_is_one_line(empty: Database, limited: Settings) -> None:
    with closing(hold_connection(limited)):
        assert_refused(empty, limited, "role")


@pytest.mark.slow
def test_the_limit_of_a_database_that_stays_reached_is_one_line(empty: Database, limited: Settings) -> None:
    empty.query(f'ALTER DATABASE "{limited.database}" CONNECTION LIMIT 0')
    try:
        assert_refused(empty, limited, "database")
    finally:
        empty.query(f'ALTER DATABASE "{limited.database}" CONNECTION LIMIT -1')


@pytest.mark.slow
def test_the_error_of_a_limit_may_be_retried(limited: Settings) -> None:
    with closing(hold_connection(limited)), pytest.raises(TooManyConnectionsError) as refused:
        connect(limited)
    assert refused.value.retryable
