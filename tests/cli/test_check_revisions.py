"""`mlops-db check --revisions` as an author and CI run it: without a server of their own."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mlops_db.inspection.revisions import CHECKS
from support.cluster import DISPOSABLE, embedded_server, server_folder
from support.database import ROOT, clean_environment, run_command
from support.process import told
from support.revision_project import add_revision, copied_project, empty_project, versions

COMMAND = ("mlops-db", "check", "--revisions")
COLUMN = ("op.execute('ALTER TABLE model_versions ADD COLUMN owner text')",
          "op.execute('ALTER TABLE model_versions DROP COLUMN owner')")  # fmt: skip

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
    return run_command(*command, environment=clean_environment(**variables), cwd=folder)


def test_this_project_s_revisions_pass(folder: Path) -> None:
    """Whatever server the environment names: that one is not for scratch databases."""
    done = check(folder, POSTGRES_HOST="no..host")

    assert done.returncode == 0, done
    files = sorted(path.name for path in versions(ROOT / "alembic.ini").glob("*.py"))
    table, *rows, verdict = done.stdout.splitlines()
    assert re.split(r"  +", table) == ["revision", *CHECKS]
    assert [row.split()[0] for row in rows] == files
    assert {cell for row in rows for cell in row.split()[1:]} <= {"ok", "-"}
    assert verdict == f"{len(files)} revisions: nothing found"
    total = len(files)
    progress = [line.split(" ...")[0] for line in done.stderr.splitlines()]
    assert progress == [f"[{number}/{total}] {file.removesuffix('.py')}" for number, file in enumerate(files, 1)]


def test_findings_of_another_project_are_printed_and_exit_1(folder: Path, tmp_path: Path) -> None:
    ini = copied_project(tmp_path)
    first = add_revision(ini, *COLUMN, locks="none.")
    second = add_revision(ini, "op.create_index('i', 'model_versions', ['owner'])", "op.drop_index('i')")

    done = check(folder, ini)

    assert done.returncode == 1
    lines = done.stdout.splitlines()
    total = len(list(versions(ini).glob("*.py")))
    assert [re.split(r"  +", line) for line in lines[total - 1 : total + 1]] == [
        [first, "ok", "ok", "ok", "ok", "2"],
        [second, "ok", "ok", "ok", "1", "ok"],
    ]
    findings = lines[total + 1 : -1]
    assert [line.split(": ")[:2] for line in findings] == [[first, "locks"], [first, "locks"], [second, "squawk"]]
    assert lines[-1] == f"{total} revisions: 3 findings"


def test_without_squawk_it_says_how_to_get_it(folder: Path, tmp_path: Path) -> None:
    ini = empty_project(tmp_path)
    add_revision(ini, *NOTHING)
    elsewhere = f"import sys; sys.executable = {str(tmp_path / 'python')!r}; from mlops_db.cli.main import main; "

    done = check(
        folder, ini, command=("python", "-c", f"{elsewhere} sys.exit(main(['check', '--revisions']))"), PATH="/bin"
    )

    told(done, "need squawk, which is not installed", "pip install 'mlops-db[check]'")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_project_that_is_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    done = check(folder, tmp_path / "nowhere" / "alembic.ini")

    told(done, "nowhere")
    assert done.returncode == 1
