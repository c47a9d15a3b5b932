"""Sessions of other people, and waiting for what they do."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from support.database import Database

PATIENCE_S = 60.0
CHECKS_ITS_CLIENT_SINCE = 140000  # client_connection_check_interval: PostgreSQL 14


def wait_until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Check a condition every few milliseconds until it holds, for `patience_s` at most."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s:g} s for {what}"
        time.sleep(0.01)


@contextmanager
def another_session(database: Database, application: str, *statements: str) -> Iterator[psycopg.Connection]:
    """A session of somebody else in a transaction that ran `statements`; the end of the block ends it."""
    settings = database.settings
    with psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password,
        dbname=settings.database,
        application_name=application,
    ) as session:
        for statement in statements:
            session.execute(statement)
        yield session
