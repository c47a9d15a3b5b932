"""Servers and sessions that stand still: nobody waits for them longer than was said."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import NoAnswerError
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from support.cluster import embedded_programs, throwaway_cluster
from support.frozen import frozen, processes_of


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A server of its own, at head."""
    with throwaway_cluster(embedded_programs()) as folder:
        upgrade(settings_of(folder))
        yield folder


def settings_of(folder: Path) -> Settings:
    return Settings(host=str(folder), user="postgres", password=None, database="postgres")


def test_a_frozen_server_is_given_up_and_taken_up_again(folder: Path) -> None:
    with DatabaseManager(settings_of(folder)) as db:
        db.models.production()
        with frozen(*processes_of(folder)):
            with pytest.raises(NoAnswerError, match=r"within 0\.3 s"):
                db.ping(0.3)
            with pytest.raises(NoAnswerError):
                db.wait_until_ready(0.3)
        db.ping()
        db.wait_until_ready()
        assert db.models.production() is None


def test_a_server_that_starts_no_more_sessions_is_given_up(folder: Path) -> None:
    with DatabaseManager(settings_of(folder)) as db:
        with frozen(processes_of(folder)[0]), pytest.raises(NoAnswerError):
            db.ping(0.3)
        db.ping()


def test_a_ping_does_not_wait_for_a_frozen_session_of_the_pool(folder: Path) -> None:
    with DatabaseManager(settings_of(folder)) as db:
        with db.get_connection() as connection:
            pid = connection.info.backend_pid
        with frozen(pid):
            db.ping()
