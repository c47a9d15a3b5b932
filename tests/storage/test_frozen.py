"""Servers and sessions that stand still: nobody waits for them longer than was said."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import ContentionError, NoAnswerError
from mlops_db.migration.commands import upgrade
from support.cluster import embedded_programs, freeze, freeze_server, postmaster_of, settings_of, throwaway_cluster

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql, pytest.mark.libraries]

TURN = "SELECT pg_advisory_xact_lock(hashtextextended('mlops_db.model default', 0))"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A server of its own, at head."""
    with throwaway_cluster(embedded_programs(), max_prepared_transactions="2") as folder:
        upgrade(settings_of(folder))
        yield folder


def test_a_frozen_server_is_given_up_and_taken_up_again(folder: Path) -> None:
    with DatabaseManager(settings_of(folder)) as db:
        db.models.production()
        with freeze_server(folder):
            with pytest.raises(NoAnswerError, match=r"within 0\.3 s"):
                db.ping(0.3)
            with pytest.raises(NoAnswerError):
                db.wait_until_ready(0.3)
        db.ping()
        db.wait_until_ready()
        assert db.models.production() is None


def test_a_server_that_starts_no_more_sessions_is_given_up(folder: Path) -> None:
    with DatabaseManager(settings_of(folder)) as db:
        with freeze(postmaster_of(folder)), pytest.raises(NoAnswerError):
            db.ping(0.3)
        db.ping()


def test_a_ping_does_not_wait_for_a_frozen_session_of_the_pool(folder: Path) -> None:
    with DatabaseManager(settings_of(folder)) as db:
        with db.get_connection() as connection:
            pid = connection.info.backend_pid
        with freeze(pid):
            db.ping()


@pytest.mark.parametrize("lock", ["the model", "a row", "a table"])
def test_a_frozen_session_is_named_and_the_others_go_on(folder: Path, lock: str) -> None:
    statement = {
        "the model": TURN,
        "a row": "SELECT FROM model_versions WHERE mlflow_run_id = 'frozen' FOR UPDATE",
        "a table": "LOCK TABLE model_versions",
    }[lock]
    impatient = replace(settings_of(folder), lock_wait=200, pool_lock_timeout=200)
    with DatabaseManager(impatient) as db, psycopg.connect(**whereabouts(folder), application_name="stuck") as stuck:
        db.models.register("frozen", "1")
        stuck.execute(statement)
        pid = stuck.info.backend_pid
        with freeze(pid):
            with pytest.raises(ContentionError, match=rf"pid {pid} \(stuck, role postgres\)") as caught:
                db.models.promote("frozen")
            assert caught.value.retryable
            db.monitoring.log("drift", "psi", 1.0)
        stuck.rollback()
        db.models.promote("frozen")


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE model_versions SET f1_score = 0.3", "held by the prepared transaction 'it''s forgotten'"),
        (TURN, "by a prepared transaction"),
    ],
)
def test_a_prepared_transaction_that_nobody_ends_is_named(folder: Path, statement: str, named: str) -> None:
    with DatabaseManager(replace(settings_of(folder), lock_wait=200, pool_lock_timeout=200)) as db:
        db.models.register("prepared", "1")
        with ExitStack() as at_the_end, psycopg.connect(**whereabouts(folder), autocommit=True) as manager:
            manager.execute(f"BEGIN; {statement}")
            manager.execute("PREPARE TRANSACTION 'it''s forgotten'")
            at_the_end.callback(manager.execute, "ROLLBACK PREPARED 'it''s forgotten'")
            with pytest.raises(ContentionError, match=named):
                db.models.promote("prepared")
            at_the_end.close()
        db.models.promote("prepared")


def whereabouts(folder: Path) -> dict[str, str]:
    return {"host": str(folder), "user": "postgres", "dbname": "postgres"}
