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
from support.database import LONG_TIMEOUT_S, ROOT, clean_environment, run_command
from support.process import assert_failed
from support.projects import add_revision, copy_project, empty_project, versions

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

COMMAND = ("mlops-db", "lint")
ALIAS = ("mlops-db", "check", "--revisions")
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
    return run_command(*command, environment=clean_environment(**variables), cwd=folder, timeout=LONG_TIMEOUT_S)


def test_without_findings_it_exits_0(folder: Path, tmp_path: Path) -> None:
    ini = empty_project(tmp_path)
    file = add_revision(ini, *NOTHING)

    done = check(folder, ini)

    assert done.returncode == 0, done
    _, row, verdict = done.stdout.splitlines()
    assert re.split(r"  +", row) == [file, *["ok"] * len(COLUMNS)]
    assert verdict == "1 revisions: nothing found"


def test_this_project_s_revisions_pass_and_findings_of_two_more_are_printed(folder: Path, tmp_path: Path) -> None:
    """Whatever server the environment names: that one is not for scratch databases."""
    ini = copy_project(tmp_path)
    ours = len(list(versions(ini).glob("*.py")))
    first = add_revision(ini, *COLUMN, locks="none.")
    second = add_revision(ini, "op.create_index('i', 'model_versions', ['owner'])", "op.drop_index('i')")

    done = check(folder, ini, POSTGRES_HOST="no..host")

    assert done.returncode == 1
    files = sorted(path.name for path in versions(ini).glob("*.py"))
    total = len(files)
    table, *lines = done.stdout.splitlines()
    assert re.split(r"  +", table) == ["revision", *COLUMNS]
    rows = [re.split(r"  +", line) for line in lines[:total]]
    assert [name for name, *_ in rows] == files
    assert {cell for _, *cells in rows[:ours] for cell in cells} <= {"ok", "-"}
    assert rows[ours:] == [
        [first, "ok", "ok", "ok", "ok", "2", "ok", "ok", "ok"],
        [second, "ok", "ok", "ok", "1", "ok", "ok", "ok", "ok"],
    ]
    findings = lines[total:-1]
    assert [line.split(": ")[:2] for line in findings] == [[first, "locks"], [first, "locks"], [second, "squawk"]]
    assert lines[-1] == f"{total} revisions: 3 findings"
    progress = [line.split(" ...")[0] for line in done.stderr.splitlines()]
    assert progress == [f"[{number}/{total}] {file.removesuffix('.py')}" for number, file in enumerate(files, 1)]


def test_check_with_revisions_is_the_same_command(folder: Path, tmp_path: Path) -> None:
    ini = empty_project(tmp_path)
    add_revision(ini, *NOTHING, locks="some.", title="<title>")

    done, alias = (check(folder, ini, command=command) for command in (COMMAND, ALIAS))

    assert (done.returncode, done.stdout) == (1, alias.stdout)
    assert alias.returncode == 1
    assert "0005_change.py: docstring: " in done.stdout


def test_a_schema_that_was_edited_without_a_revision_is_found(folder: Path, tmp_path: Path) -> None:
    copy_project(tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    schema = tmp_path / "src" / "mlops_db" / "schema"
    for file, before, after in (
        (
            "model_versions.py",
            '    UniqueConstraint("mlflow',
            '    Column("owner", Integer), UniqueConstraint("mlflow',
        ),
        ("model_versions.py", "f1_score BETWEEN {MIN_SCORE} AND {MAX_SCORE}", "f1_score BETWEEN 0 AND 2"),
        ("model_versions.py", "text(\"status = 'production'\")", "text(\"status <> 'staging'\")"),
        ("retraining_decisions.py", "Why, in words.", "Why."),
        ("views.py", "Whether it is in production.", "In production?"),
    ):
        text = (schema / file).read_text(encoding="utf-8")
        assert before in text
        (schema / file).write_text(text.replace(before, after), encoding="utf-8")

    done = check(folder, command=("python", "-m", "mlops_db", *COMMAND[1:]), PYTHONPATH=str(tmp_path / "src"))

    assert done.returncode == 1, done
    findings = [line for line in done.stdout.splitlines() if line.startswith("src/mlops_db/schema: schema: ")]
    for part, remedy in (
        ("add_column model_versions.owner", "alembic revision --autogenerate"),
        ("model_versions_f1_score_check of model_versions is CHECK", "op.validate_constraint"),
        ("model_versions_production_key of model_versions is WHERE", "op.create_index_concurrently"),
        ("modify_comment retraining_decisions.reasoning", "alembic revision --autogenerate"),
        ("modify_view_comments v_model_timeline", "alembic revision --autogenerate"),
    ):
        assert any(part in line and remedy in line for line in findings), (part, findings)


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
