"""A `.env` that cannot be read whole ends a command before it connects, through `alembic` and `mlops-db` alike."""

import os
from pathlib import Path

import pytest

from mlops_db.server.guests import REVOKE_CREATE
from support.database import ROOT, Database, clean_environment, run_command
from support.process import SECRET, assert_failed

pytestmark = pytest.mark.full_postgresql

CURRENT = ("alembic", "-c", str(ROOT / "alembic.ini"), "current")
STATUS = ("mlops-db", "status")


@pytest.mark.parametrize("arguments", [CURRENT, STATUS])
def test_a_quote_that_is_missing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / ".env").write_text(f"POSTGRES_PASSWORD='{SECRET}'\n\nMLOPS_ENV='production\n", encoding="utf-8")
    done = run_command(*arguments, environment=clean_environment(), cwd=tmp_path)
    assert_failed(done, ".env: line 3 is not NAME=value", "Quote the value at both ends")
    assert done.returncode == (255 if arguments is CURRENT else 1)


@pytest.mark.parametrize("arguments", [CURRENT, STATUS])
def test_a_fifo_is_not_waited_for(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / ".env")
    done = run_command(*arguments, environment=clean_environment(), cwd=tmp_path)
    assert_failed(done, ".env cannot be read", "not a regular file")


@pytest.mark.parametrize("ending", ["\n", "%0A"])
def test_a_line_break_behind_the_url_makes_no_second_database(empty: Database, ending: str) -> None:
    host, name = empty.settings.host.replace("/", "%2F"), empty.settings.database
    url = f"postgresql://{empty.settings.user}:{SECRET}@{host}:{empty.settings.port}/{name}{ending}"
    before = empty.query("SELECT datname FROM pg_database ORDER BY datname")
    environment = clean_environment(MLOPS_DATABASE_URL=url)

    assert_failed(
        run_command("mlops-db", "init", environment=environment), "MLOPS_DATABASE_URL", "ends with a line break"
    )

    assert empty.query("SELECT datname FROM pg_database ORDER BY datname") == before


def test_a_file_from_a_windows_editor_is_read_whole(head: Database, tmp_path: Path) -> None:
    names = ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "MLOPS_DB_NAME")
    lines = [f"{name}={head.environment[name]}\r\n" for name in names]
    (tmp_path / ".env").write_bytes(("\ufeff" + "".join(lines)).encode())
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    done = run_command(*STATUS, environment=clean_environment(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"database  {head.settings.target}\n")
