"""What users read when something is wrong: one line, a hint, an exit code, through `alembic` and `mlops-db` alike."""

import socket
from collections.abc import Iterator

import pytest
from alembic import command
from alembic.util import CommandError

from mlops_db.migration.commands import alembic_config
from support.database import Database
from support.process import SECRET, assert_failed

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

UPGRADE = ("alembic", "upgrade", "head")
CHECK = ("alembic", "check")
CURRENT = ("alembic", "current")
INIT = ("mlops-db", "init")
STATUS = ("mlops-db", "status")
ALEMBIC_FAILED = 255

BY_HAND = """
CREATE TABLE model_versions (
    id SERIAL PRIMARY KEY,
    mlflow_run_id VARCHAR(255) UNIQUE NOT NULL,
    model_version VARCHAR(50) NOT NULL
);
INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run', '1');
"""


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port of this machine that nobody listens on, nor can begin to while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def code_of(arguments: tuple[str, ...], mlops_db: int) -> int:
    return ALEMBIC_FAILED if arguments[0] == "alembic" else mlops_db


@pytest.mark.parametrize("arguments", [UPGRADE, INIT, STATUS])
def test_no_server(empty: Database, deaf_port: int, arguments: tuple[str, ...]) -> None:
    done = empty.run(*arguments, POSTGRES_HOST="127.0.0.1", POSTGRES_PORT=str(deaf_port), POSTGRES_PASSWORD=SECRET)
    assert_failed(done, "no PostgreSQL answers", f"127.0.0.1:{deaf_port}", "refused", "POSTGRES_HOST", "POSTGRES_PORT")
    assert done.returncode == code_of(arguments, 2)


def test_a_socket_folder_without_a_socket(empty: Database) -> None:
    done = empty.run(*STATUS, POSTGRES_HOST="/no/such/folder", POSTGRES_PASSWORD=SECRET)
    assert_failed(done, "no PostgreSQL answers", "/no/such/folder", "No such file or directory", "POSTGRES_HOST")
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [CHECK, INIT, STATUS])
def test_a_host_that_cannot_be_resolved(empty: Database, arguments: tuple[str, ...]) -> None:
    # The empty label makes it no host name at all, so that no name server is asked and the test needs no network.
    done = empty.run(*arguments, POSTGRES_HOST="no..host", POSTGRES_PASSWORD=SECRET)
    assert_failed(done, "'no..host' cannot be resolved", "POSTGRES_HOST", "`embedded`")
    assert done.returncode == code_of(arguments, 2)


@pytest.mark.parametrize("arguments", [CURRENT, STATUS])
def test_a_missing_database(empty: Database, arguments: tuple[str, ...]) -> None:
    done = empty.run(*arguments, MLOPS_DB_NAME="mlops_test_nowhere", POSTGRES_PASSWORD=SECRET)
    assert_failed(done, 'database "mlops_test_nowhere" does not exist', "`mlops-db create`")
    assert done.returncode == code_of(arguments, 1)


def test_a_role_that_does_not_exist(empty: Database) -> None:
    done = empty.run(*STATUS, POSTGRES_USER="mlops_test_nobody", POSTGRES_PASSWORD=SECRET)
    assert_failed(done, "mlops_test_nobody", "POSTGRES_USER")
    assert done.returncode == 2


def test_missing_tables(empty: Database) -> None:
    assert_failed(empty.run(*CHECK), "`alembic upgrade head`")
    assert empty.run(*STATUS).returncode == 1
    assert empty.value("SELECT to_regclass('alembic_version')") is None  # they only look


@pytest.mark.plain_postgresql(reason="this downgrade is refused before it looks for tables")
def test_missing_tables_of_a_database_that_is_stamped_at_head(head: Database) -> None:
    head.query("DROP TABLE model_versions CASCADE")
    head.query("DROP VIEW v_recent_monitoring")
    with pytest.raises(CommandError, match=r"does not exist\nHint: .*`alembic upgrade head`.*`mlops-db status`"):
        command.downgrade(alembic_config(head.settings), "base")


@pytest.mark.parametrize("arguments", [UPGRADE, INIT, STATUS])
def test_a_revision_that_this_checkout_does_not_have(head: Database, arguments: tuple[str, ...]) -> None:
    """A newer checkout's, or that of another tool: Airflow and MLflow use a table of the same name."""
    head.query("UPDATE alembic_version SET version_num = '9999'")
    before = head.dump()

    done = head.run(*arguments)

    assert_failed(done, "'9999'", "nothing was changed", "newer", "MLOPS_DB_NAME")
    assert done.returncode == code_of(arguments, 1)
    assert head.dump() == before
    assert head.query("SELECT version_num FROM alembic_version") == [("9999",)]


@pytest.mark.parametrize("arguments", [UPGRADE, INIT, STATUS])
def test_tables_that_were_made_by_hand(empty: Database, arguments: tuple[str, ...]) -> None:
    empty.query(BY_HAND)
    before = empty.dump()

    done = empty.run(*arguments)

    assert_failed(done, "model_versions", "no revision in alembic_version", "nothing was changed")
    assert done.returncode == code_of(arguments, 1)
    assert empty.dump() == before
    assert empty.query("SELECT mlflow_run_id FROM model_versions") == [("run",)]


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (CURRENT, {"POSTGRES_PORT": "x"}, "POSTGRES_PORT"),
        (STATUS, {"POSTGRES_PORT": "x"}, "POSTGRES_PORT"),
        (INIT, {"MLOPS_DB_NAME": "x" * 64}, "MLOPS_DB_NAME"),
        (INIT, {"MLOPS_DATABASE_URL": f"postgresql://airflow:p@{SECRET}@postgres/mlops"}, "MLOPS_DATABASE_URL"),
        (STATUS, {"POSTGRES_PASSWORD_FILE": "/run/secrets/other"}, "POSTGRES_PASSWORD_FILE"),
    ],
)
def test_settings_that_cannot_be_used(
    empty: Database, arguments: tuple[str, ...], variables: dict[str, str], named: str
) -> None:
    done = empty.run(*arguments, **{"POSTGRES_PASSWORD": SECRET} | variables)
    assert_failed(done, named)
    assert done.returncode == code_of(arguments, 1)


@pytest.mark.parametrize("variable", [{"PGOPTIONS": "-c nope=1"}, {"PGOPTIONS": "--nope"}, {"PGTZ": "Nowhere/At"}])
def test_the_error_of_a_refused_setting_names_its_sources(empty: Database, variable: dict[str, str]) -> None:
    assert_failed(empty.run(*STATUS, **variable), "PGOPTIONS, PGTZ, the URL or a service file")
