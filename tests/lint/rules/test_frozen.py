"""A released revision that was changed, removed, or got another one before it is found."""

import shutil
from pathlib import Path

import pytest

from mlops_db.lint.rules.frozen import LIST
from support.database import ROOT, clean_environment, run_command
from support.projects import source, versions
from support.revision_files import DOWN, FIRST, SECOND, UP, file_findings

pytestmark = pytest.mark.one_postgresql

STATEMENT = "CREATE VIEW v AS SELECT 1;\n"
THIRD = source("0003", "0002", 'op.execute_file("0003_v.sql")', "op.execute('DROP VIEW v')")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three released revisions; the last one has an SQL file."""
    folder = tmp_path / "versions"
    (folder / "sql").mkdir(parents=True)
    for name, text in (("0001_first", FIRST), ("0002_second", SECOND), ("0003_third", THIRD)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "sql" / "0003_v.sql").write_text(STATEMENT, encoding="utf-8")
    freeze(folder)
    return folder


def freeze(folder: Path) -> None:
    """What docs/developing.md says to do at a release."""
    command = ("bash", "-c", f"sha256sum *.py sql/*.sql > {LIST}")
    assert run_command(*command, environment=clean_environment(), cwd=folder).returncode == 0


def found(folder: Path) -> list[str]:
    return [str(finding) for finding in file_findings(folder)]


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")


def test_released_files_as_they_were_and_a_new_revision_have_no_findings(folder: Path) -> None:
    (folder / "0004_fourth.py").write_text(source("0004", "0003", UP, DOWN), encoding="utf-8")

    assert found(folder) == []


@pytest.mark.parametrize(("file", "of"), [("0001_first.py", "0001_first.py"), ("sql/0003_v.sql", "0003_third.py")])
def test_a_file_that_was_changed_is_found(folder: Path, file: str, of: str) -> None:
    edit(folder / file)

    (line,) = found(folder)

    assert line.startswith(f"{of}: frozen: {file} was changed after its release: frozen.sha256 has another checksum. ")
    assert line.endswith(". Restore the file, and write a new revision that makes the change.")


def test_a_file_that_is_missing_is_found(folder: Path) -> None:
    (folder / "0003_third.py").unlink()

    (line,) = found(folder)

    assert line.startswith(
        "0003_third.py: frozen: it was released, and does not exist: frozen.sha256 has its checksum. "
    )


def test_an_sql_file_that_is_missing_is_found(folder: Path) -> None:
    (folder / "sql" / "0003_v.sql").unlink()

    assert any(line.startswith("0003_third.py: sql-file: it names sql/0003_v.sql, ") for line in found(folder))


def test_a_revision_between_released_ones_is_found(folder: Path) -> None:
    between = source("0002", "0001", UP, DOWN)
    (folder / "0002_between.py").write_text(
        between.replace('revision = "0002"', 'revision = "0002b"'), encoding="utf-8"
    )

    lines = [line for line in found(folder) if ": frozen: " in line]

    after = "it is not released, and 0003_third.py after it is"
    assert lines == [f"0002_between.py: frozen: {after}. Renumber it: it follows all released revisions."]


def test_an_sql_file_of_a_released_revision_without_a_checksum_is_found(folder: Path) -> None:
    kept = (folder / LIST).read_text(encoding="utf-8").splitlines()[:3]
    (folder / LIST).write_text("\n".join(kept), encoding="utf-8")

    lacks = "frozen.sha256 has no checksum of sql/0003_v.sql"
    assert found(folder) == [f"0003_third.py: frozen: {lacks}. Add it: `sha256sum sql/*.sql` in its folder."]


def test_a_line_that_is_no_checksum_is_found(folder: Path) -> None:
    with (folder / LIST).open("ab") as file:
        file.write(b"<<<<<<< HEAD \xff\n")

    assert found(folder) == ["frozen.sha256: frozen: line 5 is not one of sha256sum. Write the file again."]


def test_line_ends_of_windows_are_no_change(folder: Path) -> None:
    for path in (folder / "0001_first.py", folder / "sql" / "0003_v.sql", folder / LIST):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert found(folder) == []


def test_a_project_without_the_list_has_released_nothing(folder: Path) -> None:
    (folder / LIST).unlink()
    edit(folder / "0001_first.py")

    assert found(folder) == []


def test_an_empty_list_has_released_nothing(folder: Path) -> None:
    (folder / LIST).write_text("", encoding="utf-8")
    edit(folder / "0001_first.py")

    assert found(folder) == []


def test_our_list_is_one_of_sha256sum_and_has_the_baseline() -> None:
    folder = versions(ROOT / "alembic.ini")
    listed = (folder / LIST).read_text(encoding="utf-8")

    assert {f"{number:04}" for number in range(1, 5)} <= {line.split()[1][:4] for line in listed.splitlines()}
    if shutil.which("sha256sum"):
        command = ("sha256sum", "--check", "--strict", "--quiet", LIST)
        assert run_command(*command, environment=clean_environment(), cwd=folder).returncode == 0


def test_the_hook_before_a_commit_runs_for_each_file_that_the_list_covers() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")

    assert "entry: uv run mlops-db lint\n" in hooks
    assert r"files: ^(alembic\.ini|migrations/.*)$" in hooks
