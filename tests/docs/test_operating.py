"""The commands of docs/operating.md about copies, letter for letter, by an owner that is no superuser."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.cluster import connect_superuser, embedded_programs, throwaway_cluster
from support.database import ROOT, SCRIPTS, clean_environment, client

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """A server of its own, where databases can have the page's names; the owner is the role airflow."""
    with throwaway_cluster(embedded_programs()) as socket:
        with connect_superuser(socket) as connection:
            connection.execute("CREATE ROLE airflow LOGIN CREATEDB")
        yield socket


@pytest.fixture(scope="module")
def backup(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's dump of a database with rows."""
    folder = tmp_path_factory.mktemp("backup")
    run("mlops-db init && mlops-db demo --days 90", server, folder)
    run(block("backup"), server, folder)
    return folder


def test_a_copy_is_clean(server: Path, backup: Path) -> None:
    assert run(block("copy"), server, backup).endswith(": no difference\n")
    assert rows(server, "mlops_copy") == rows(server, "mlops")


def test_what_a_copy_lost_comes_back(server: Path, backup: Path) -> None:
    restore, *further = block("repair").splitlines(keepends=True)[1:]
    run(f"createdb --owner=airflow mlops_plain; {restore}", server, backup, user="postgres")

    lost = run("MLOPS_DB_NAME=mlops_plain mlops-db check || true", server, backup, user="postgres")
    output = run("".join(further), server, backup, user="postgres")

    assert "owner" in lost
    assert "EXECUTE" in lost
    assert output.endswith(": no difference\n")
    assert run("MLOPS_DB_NAME=mlops_plain mlops-db check", server, backup).endswith(": no difference\n")
    run("MLOPS_DB_NAME=mlops_plain alembic downgrade base", server, backup)


def test_rows_go_into_a_new_database(server: Path, backup: Path) -> None:
    run(block("rows"), server, backup)
    assert rows(server, "mlops_rows") == rows(server, "mlops")
    assert run("MLOPS_DB_NAME=mlops_rows mlops-db check", server, backup).endswith(": no difference\n")


@pytest.fixture
def another_server() -> Iterator[Path]:
    """A server for a database mlops that is not at head."""
    with throwaway_cluster(embedded_programs()) as socket:
        with connect_superuser(socket) as connection:
            connection.execute("CREATE ROLE airflow LOGIN CREATEDB")
        yield socket


def test_a_table_that_a_downgrade_dropped_comes_back(another_server: Path, tmp_path: Path) -> None:
    decisions = """
        INSERT INTO retraining_decisions (action, reasoning)
        SELECT 'promote', 'better' FROM generate_series(1, 3)
    """
    run("mlops-db create; alembic upgrade 0003", another_server, tmp_path)
    execute(another_server, decisions)
    before = execute(another_server, "SELECT t::text FROM retraining_decisions AS t ORDER BY id")

    run(block("lost-table"), another_server, tmp_path)
    assert execute(another_server, "SELECT to_regclass('retraining_decisions')") == [(None,)]
    run(block("table-back"), another_server, tmp_path)

    assert execute(another_server, "SELECT t::text FROM retraining_decisions AS t ORDER BY id") == before
    execute(another_server, decisions)  # the sequence goes on
    assert execute(another_server, "SELECT max(id) FROM retraining_decisions") == [(6,)]


def test_values_of_a_column_that_a_downgrade_dropped_come_back(another_server: Path, tmp_path: Path) -> None:
    run("mlops-db create; alembic upgrade 0007; mkdir backups", another_server, tmp_path)
    execute(
        another_server,
        "INSERT INTO model_versions (mlflow_run_id, model_version, model_name)"
        " VALUES ('a', '1', 'churn'), ('b', '1', 'default'), ('c', '2', E'odd\\\\name\\t')",
    )
    before = execute(another_server, "SELECT t::text FROM model_versions AS t ORDER BY id")

    run("alembic -x backup=backups downgrade 0006", another_server, tmp_path)
    execute(another_server, "UPDATE model_versions SET f1_score = 0.5 WHERE mlflow_run_id = 'b'")
    run(block("column-back"), another_server, tmp_path)

    changed = [(row[0].replace("b,1,staging,,", "b,1,staging,0.5,"),) for row in before]
    found = execute(another_server, "SELECT t::text FROM model_versions AS t ORDER BY id")
    assert found == changed
    assert execute(another_server, "SELECT count(*) FROM pg_database WHERE datname = 'mlops_saved'") == [(0,)]


def block(name: str) -> str:
    found = re.search(rf"^```bash {name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def run(commands: str, server: Path, folder: Path, *, user: str = "airflow") -> str:
    programs = Path(client("pg_dump")).parent
    environment = clean_environment(
        PGHOST=str(server), PGUSER=user, POSTGRES_HOST=str(server), POSTGRES_USER=user, POSTGRES_PASSWORD=""
    )
    environment["PATH"] = f"{SCRIPTS}:{programs}:{environment['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-e", "-c", commands],
        cwd=folder,
        env=environment | {"ALEMBIC_CONFIG": str(ROOT / "alembic.ini")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def rows(server: Path, database: str) -> list[tuple[object, ...]]:
    """How many rows there are, and what the views make of them."""
    with psycopg.connect(host=str(server), user="airflow", dbname=database) as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM model_versions), (SELECT count(*) FROM monitoring_metrics),"
            " (SELECT count(*) FROM retraining_decisions), (SELECT count(*) FROM v_recent_monitoring),"
            " (SELECT max(id) FROM monitoring_metrics)"
        ).fetchall()


def execute(server: Path, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(host=str(server), user="airflow", dbname="mlops", autocommit=True) as connection:
        cursor = connection.execute(statement)
        return [] if cursor.description is None else cursor.fetchall()
