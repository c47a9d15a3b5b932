"""The timeouts of jobs' statements: whose holds, and that nothing a caller does takes them away."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import StatementTimeoutError
from mlops_db.settings import Settings
from support.database import Database
from support.pooler import PGBOUNCER, pgbouncer

pytestmark = pytest.mark.libraries

IN_FORCE = """
SELECT (SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'),
       (SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout')
"""
# Ours and theirs, each for a lock and for a statement, in milliseconds; what holds.
SHORTEST = [
    ((60_000, 0), (0, 0), (60_000, 0)),
    ((60_000, 0), (5_000, 7_000), (5_000, 7_000)),
    ((60_000, 9_000), (5_000, 70_000), (5_000, 9_000)),
    ((5_000, 9_000), (3_600_000, 7_000), (5_000, 7_000)),
    ((0, 0), (90_000, 80_000), (90_000, 80_000)),
    ((0, 0), (0, 0), (0, 0)),
]


def in_force(db: DatabaseManager) -> tuple[int, int]:
    (found,) = db.execute_query(IN_FORCE)  # type: ignore[misc]
    return found  # type: ignore[no-any-return]


@contextmanager
def manager_of(settings: Settings, lock: int, statement: int, **changes: Any) -> Iterator[DatabaseManager]:
    ours = replace(settings, pool_lock_timeout=lock, pool_statement_timeout=statement, **changes)
    with DatabaseManager(ours) as db:
        yield db


def test_a_wait_for_a_lock_ends_by_default(head: Database) -> None:
    with DatabaseManager(head.settings) as db:
        assert in_force(db) == (60_000, 0)


@pytest.fixture
def job(head: Database) -> Iterator[str]:
    """A role that may read."""
    head.query("CREATE ROLE mlops_test_job LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO mlops_test_job")
    yield "mlops_test_job"
    head.query("DROP OWNED BY mlops_test_job; DROP ROLE mlops_test_job")


@pytest.mark.parametrize("whose", ["ROLE mlops_test_job", "DATABASE %s", "ROLE mlops_test_job IN DATABASE %s"])
def test_the_shorter_of_ours_and_the_roles_or_databases_holds(head: Database, job: str, whose: str) -> None:
    name = whose.replace("%s", head.settings.database)
    for ours, theirs, expected in SHORTEST:
        head.query(f"ALTER {name} SET lock_timeout = {theirs[0]}")
        head.query(f"ALTER {name} SET statement_timeout = '{theirs[1]}ms'")
        with manager_of(head.settings, *ours, user=job) as db:
            assert in_force(db) == expected
        with manager_of(head.settings, *ours) as db:
            assert in_force(db) == (expected if whose.startswith("DATABASE") else ours)


def test_the_shorter_of_ours_and_the_options_holds(head: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for ours, theirs, expected in SHORTEST:
        options = f"-c lock_timeout={theirs[0]} --statement-timeout={theirs[1]}"
        with manager_of(head.settings, *ours, parameters={"options": options}) as db:
            assert in_force(db) == expected
        monkeypatch.setenv("PGOPTIONS", options)
        with manager_of(head.settings, *ours) as db:
            assert in_force(db) == expected
        monkeypatch.delenv("PGOPTIONS")


@pytest.mark.parametrize("theirs", [None, 300_000, 3_000])
def test_no_caller_takes_them_away(head: Database, theirs: int | None) -> None:
    if theirs is not None:
        head.query(f"ALTER DATABASE {head.settings.database} SET lock_timeout = {theirs}")
    expected = (min(60_000, theirs or 60_000), 50_000)
    with manager_of(head.settings, 60_000, 50_000, pool_size=1, pool_overflow=0) as db:
        for statement in ("RESET ALL", "RESET lock_timeout", "DISCARD ALL", "SET SESSION AUTHORIZATION DEFAULT"):
            with db.get_connection() as connection, connection.cursor() as cursor:
                connection.rollback()
                connection.autocommit = True
                cursor.execute("SET lock_timeout = 0; SET statement_timeout = 0")
                cursor.execute(statement)
                cursor.execute(IN_FORCE)
                if statement.endswith("ALL"):
                    assert cursor.fetchone() == expected
            assert in_force(db) == expected


@pytest.mark.skipif(PGBOUNCER is None, reason="needs PgBouncer (Debian's package pgbouncer)")
@pytest.mark.parametrize(
    "ignored", ["extra_float_digits", "extra_float_digits,options"], ids=["refuses the options", "ignores the options"]
)
def test_they_hold_behind_a_transaction_pooler(head: Database, ignored: str) -> None:
    name = head.settings.database
    head.query(f"ALTER DATABASE {name} SET lock_timeout = '2min'")
    head.query(f"ALTER DATABASE {name} SET statement_timeout = '3s'")
    head.query(f"ALTER DATABASE {name} SET search_path = nowhere")
    with pgbouncer(head, ignored) as through:
        for ours, expected in (((60_000, 5_000), (60_000, 3_000)), ((300_000, 1_000), (120_000, 1_000))):
            with manager_of(through, *ours) as db:
                assert [in_force(db), in_force(db)] == [expected] * 2
                assert db.execute_query("SHOW search_path") == [("public",)]
        with manager_of(through, 0, 0) as db:
            assert in_force(db) == (120_000, 3_000)


def test_a_statement_that_takes_too_long_ends_and_names_the_variable(head: Database) -> None:
    with manager_of(head.settings, 60_000, 500) as db:
        with pytest.raises(StatementTimeoutError) as caught:
            db.execute_query("SELECT pg_sleep(60)")
        assert "MLOPS_POOL_STATEMENT_TIMEOUT" in caught.value.hint
        assert db.models.production() is None
