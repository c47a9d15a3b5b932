"""`mlops-db lint` as an author and CI run it: without a server of their own."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mlops_db.lint.rule import COLUMNS
from support.cluster import DISPOSABLE, embedded_server, server_folder
from support.database import LONG_TIMEOUT_S, clean_environment, run_command
from support.process import assert_failed
from support.projects import add_revision, empty_project, source, versions

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

COMMAND = ("mlops-db", "lint")
ALIAS = ("mlops-db", "check", "--revisions")
TABLE = ("op.execute('CREATE TABLE orders (id bigint CONSTRAINT orders_pkey PRIMARY KEY)')",
         "op.execute('DROP TABLE orders')")  # fmt: skip
COLUMN = ("op.execute('ALTER TABLE orders ADD COLUMN owner text')",
          "op.execute('ALTER TABLE orders DROP COLUMN owner')")  # fmt: skip
NOTHING = ("op.execute('SELECT 1')", "op.execute('SELECT 2')")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A working directory whose embedded server runs already, so that each command finds it."""
    folder = server_folder("tests")
    with (
        embedded_server(folder) as server,
        psycopg.connect(host=server.host, user="postgres", dbname="postgres", autocommit=True) as connection,
    ):
        for name, value in DISPOSABLE.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        connection.execute("SELECT pg_reload_conf()")
        yield folder
        left = connection.execute("SELECT datname FROM pg_database WHERE datname NOT LIKE 'template%'").fetchall()
    shutil.rmtree(folder)
    assert left == [("postgres",)]


def check(
    folder: Path, ini: Path | None = None, *, command: tuple[str, ...] = COMMAND, **variables: str
) -> subprocess.CompletedProcess[str]:
    if ini is not None:
        variables["ALEMBIC_CONFIG"] = str(ini)
    return run_command(*command, environment=clean_environment(**variables), cwd=folder, timeout=LONG_TIMEOUT_S)


def test_without_findings_it_exits_0(folder: Path, tmp_path: Path) -> None:
    ini = empty_project(tmp_path)
    file = add_revision(ini, *NOTHING)

    done = check(folder, ini)

    assert done.returncode == 0, done
    _, row, verdict = done.stdout.splitlines()
    assert re.split(r"  +", row) == [file, *["ok"] * len(COLUMNS)]
    assert verdict == "1 revisions: nothing found"


def test_a_table_of_the_revisions_and_the_findings_of_two_are_printed(folder: Path, tmp_path: Path) -> None:
    """Whatever server the environment names: that one is not for scratch databases."""
    ini = empty_project(tmp_path)
    (versions(ini) / "0004_base.py").write_text(source("0004", None, *TABLE), encoding="utf-8")
    first = add_revision(ini, *COLUMN, locks="none.")
    second = add_revision(ini, "op.create_index('i', 'orders', ['owner'])", "op.drop_index('i')")

    done = check(folder, ini, POSTGRES_HOST="no..host")

    assert done.returncode == 1
    table, *lines = done.stdout.splitlines()
    assert [re.split(r"  +", line) for line in (table, *lines[:3])] == [
        ["revision", *COLUMNS],
        ["0004_base.py", "ok", "ok", "ok", "-", "ok", "-", "-", "-"],  # of the baseline
        [first, "ok", "ok", "ok", "ok", "2", "ok", "ok", "ok"],
        [second, "ok", "ok", "ok", "1", "ok", "ok", "ok", "ok"],
    ]
    assert [line.split(": ")[:2] for line in lines[3:-1]] == [[first, "locks"], [first, "locks"], [second, "squawk"]]
    assert lines[-1] == "3 revisions: 3 findings"
    progress = [line.split(" ...")[0] for line in done.stderr.splitlines()]
    assert progress == ["[1/3] 0004_base", "[2/3] 0005_change", "[3/3] 0006_change"]


def test_check_with_revisions_is_the_same_command(folder: Path, tmp_path: Path) -> None:
    ini = empty_project(tmp_path)
    add_revision(ini, *NOTHING, locks="some.", title="<title>")

    done, alias = (check(folder, ini, command=command) for command in (COMMAND, ALIAS))

    assert (done.returncode, done.stdout) == (1, alias.stdout)
    assert alias.returncode == 1
    assert "0005_change.py: docstring: " in done.stdout


def test_without_squawk_it_says_how_to_get_it(folder: Path, tmp_path: Path) -> None:
    ini = empty_project(tmp_path)
    add_revision(ini, *NOTHING)
    elsewhere = f"import sys; sys.executable = {str(tmp_path / 'python')!r}; from mlops_db.cli.main import main; "

    done = check(folder, ini, command=("python", "-c", f"{elsewhere} sys.exit(main(['lint']))"), PATH="/bin")

    assert_failed(done, "need squawk, which is not installed", "pip install 'mlops-db[check]'")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_missing_project_is_an_error(folder: Path, tmp_path: Path) -> None:
    done = check(folder, tmp_path / "nowhere" / "alembic.ini")

    assert_failed(done, "nowhere")
    assert done.returncode == 1
