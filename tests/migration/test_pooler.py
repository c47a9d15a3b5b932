"""A migration run through a transaction-pooling PgBouncer, the real one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from mlops_db.errors import PoolerError
from mlops_db.migration import commands
from mlops_db.settings import Settings
from support.database import Database, clean_environment, run_command
from support.pooler import PGBOUNCER, pgbouncer
from support.process import assert_failed
from support.snapshot import everything

pytestmark = [
    pytest.mark.skipif(PGBOUNCER is None, reason="needs PgBouncer (Debian's package pgbouncer)"),
    pytest.mark.full_postgresql,
]

Through = Callable[[Database], Settings]


def _connect(settings: Settings) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(host=settings.host, port=settings.port, user=settings.user, dbname=settings.database)


@pytest.fixture(
    params=["extra_float_digits", "extra_float_digits,options"], ids=["refuses the options", "ignores the options"]
)
def through(request: pytest.FixtureRequest) -> Iterator[Through]:
    """Makes settings that lead to a database through PgBouncer."""
    with ExitStack() as stack:
        yield lambda database: stack.enter_context(pgbouncer(database, request.param))


def environment_of(settings: Settings) -> dict[str, str]:
    return clean_environment(
        POSTGRES_HOST=settings.host,
        POSTGRES_PORT=str(settings.port),
        POSTGRES_USER=settings.user,
        POSTGRES_PASSWORD="",
        MLOPS_DB_NAME=settings.database,
    )


def test_the_pooler_works_for_everything_else(head: Database, through: Through) -> None:
    with _connect(through(head)) as connection:
        assert connection.execute("SELECT count(*) FROM model_versions").fetchone() == (0,)


def test_alembic_says_why_it_does_not_run_through_a_pooler(empty: Database, through: Through) -> None:
    before = everything(empty)
    environment = environment_of(through(empty))

    done = run_command("alembic", "upgrade", "head", environment=environment)

    assert_failed(done, "PgBouncer", "nothing was changed", "POSTGRES_HOST")
    assert everything(empty) == before


def test_no_command_that_changes_anything_runs_through_a_pooler(head: Database, through: Through) -> None:
    before = everything(head)
    settings = through(head)

    for target in ("base", "-1"):
        with pytest.raises(PoolerError):
            commands.downgrade(settings, target)
    with pytest.raises(PoolerError):
        commands.upgrade(settings)

    assert everything(head) == before


def test_status_and_history_answer_through_a_pooler(head: Database, through: Through) -> None:
    environment = environment_of(through(head))

    status = run_command("mlops-db", "status", environment=environment)
    history = run_command("mlops-db", "history", environment=environment)

    assert (status.returncode, status.stderr) == (0, "")
    assert "(head)" in status.stdout
    assert (history.returncode, history.stderr) == (0, "")
    assert "0004" in history.stdout
