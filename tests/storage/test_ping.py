"""How long a ping, and a wait for the database, may take: as long as they were told, whatever is at the other end."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_db import DatabaseManager
from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    DatabaseMissingError,
    InvalidValueError,
    NoAnswerError,
    ServerUnreachableError,
)
from mlops_db.settings import Settings
from support.database import Database
from support.sessions import another_session, wait_until

pytestmark = pytest.mark.libraries

NOWHERE = Settings(host="/nonexistent", password=None)


@contextmanager
def silent_server() -> Iterator[tuple[str, int]]:
    """Takes connections and never says anything, as a frozen one or a firewall does."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


def test_who_says_nothing_is_given_up(head: Database) -> None:
    with silent_server() as (host, port), DatabaseManager(replace(head.settings, host=host, port=port)) as db:
        for timeout in (0.1, Decimal("0.1")):
            with pytest.raises(NoAnswerError, match=rf"@{host}:{port}/.* gave no answer within 0\.1 s") as caught:
                db.ping(timeout=timeout)  # type: ignore[arg-type]
            assert caught.value.retryable
            assert caught.value.hint


def test_an_address_that_leads_nowhere_is_given_up() -> None:
    with DatabaseManager(replace(NOWHERE, host="192.0.2.1")) as db, pytest.raises(ServerUnreachableError):
        db.ping(0.1)


@pytest.mark.slow
def test_who_says_nothing_does_not_keep_from_asking_the_next_one(head: Database) -> None:
    here = head.settings
    with silent_server() as (host, port):
        hosts = replace(here, host=f"{host},{here.host}", port=f"{port},{here.port}")
        with DatabaseManager(hosts) as db:
            db.ping(4)
            db.wait_until_ready(0)
        with DatabaseManager(replace(hosts, database="there_is_none")) as db, pytest.raises(DatabaseMissingError):
            db.ping(4)
        with DatabaseManager(replace(hosts, parameters={"hostaddr": f"{host},"})) as db:
            db.ping(4)


def test_the_error_of_a_ping_has_the_reason(head: Database) -> None:
    expected: dict[type[ConnectionFailedError], Settings] = {
        DatabaseMissingError: replace(head.settings, database="there_is_none"),
        AuthenticationFailedError: replace(head.settings, user="nobody_of_that_name"),
        ServerUnreachableError: replace(NOWHERE, host="no..host"),
    }
    for error, settings in expected.items():
        with DatabaseManager(settings) as db, pytest.raises(error) as caught:
            db.ping()
        assert type(caught.value) is error
    for settings, words in (
        (replace(NOWHERE, host="no..host,/nonexistent"), r'host name "no\.\.host".*; .*/nonexistent'),
        (replace(NOWHERE, parameters={"target_session_attrs": "first"}), "libpq cannot use a setting"),
    ):
        with DatabaseManager(settings) as db, pytest.raises(ConnectionFailedError, match=words):
            db.ping()


def test_an_exhausted_pool_does_not_hold_up_a_ping(head: Database) -> None:
    with DatabaseManager(replace(head.settings, pool_size=1, pool_overflow=0)) as db, db.connection():
        db.ping(5)


def test_a_ping_leaves_no_session_behind(head: Database) -> None:
    with DatabaseManager(head.settings) as db:
        for _ in range(3):
            db.ping()
        sessions = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mlops-db' AND datname = current_database()"
        )
        wait_until(lambda: db.execute_query(sessions) == [(1,)], "the sessions of the pings to end")


@pytest.mark.slow
def test_a_revision_that_cannot_be_read_for_somebodys_lock_is_given_up(head: Database) -> None:
    with (
        another_session(head, "a guest", "LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"),
        DatabaseManager(head.settings) as db,
    ):
        db.ping()
        with pytest.raises(NoAnswerError):
            db.wait_until_ready(0)


def both(db: DatabaseManager) -> list[Callable[[Any], None]]:
    return [db.ping, db.wait_until_ready]


@given(
    st.one_of(
        st.floats(max_value=-0.001),
        st.sampled_from([float("nan"), Decimal("NaN"), Decimal("sNaN"), -1, True, None, "5", "5s", b"5", [5], 10**400]),
        st.text(max_size=5),
    )
)
def test_a_timeout_that_is_none_is_refused_by_name(timeout: object) -> None:
    with DatabaseManager(NOWHERE) as db:
        for call in both(db):
            with pytest.raises(InvalidValueError, match=r"^timeout: ") as caught:
                call(timeout)
            assert caught.value.key == "timeout"


@pytest.mark.parametrize("timeout", [0, 0.0, float("inf"), 1e9])
def test_a_ping_needs_a_time_that_ends_and_that_is_some(timeout: float) -> None:
    with DatabaseManager(NOWHERE) as db, pytest.raises(InvalidValueError, match=r"^timeout: "):
        db.ping(timeout)
