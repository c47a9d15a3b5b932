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
