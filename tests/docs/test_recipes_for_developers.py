"""The recipes of docs/developing.md, each followed once in a copy of the checkout.

`recipes/NAME/files` has the new files of a recipe, and `recipes/NAME/edits.yaml` the changes of old ones. The list of
files on the page must be exactly those that the change touches. Then the checks run that a pull request needs.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

from support.database import ROOT, SCRIPTS, Database, clean_environment
from support.projects import DOCSTRING, MADE_HERE, add_revision, copy_checkout, sql, versions

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

RECIPES = Path(__file__).parent / "recipes"
HEADINGS = {"table": "A new table with its API", "command": "A new command", "rule": "A new lint rule"}
PATIENCE_S = 600


def listed(recipe: str) -> list[str]:
    """The files that the page lists for a recipe."""
    page = (ROOT / "docs" / "developing.md").read_text(encoding="utf-8")
    _, _, section = page.partition(f"\n### {HEADINGS[recipe]}\n")
    return re.findall(r"^\| `([^`]+)` \|", re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        str(path): (folder / path).read_bytes()
        for path in files
        if not any(part.match(pattern) for part in (path, *path.parents) for pattern in MADE_HERE)
    }


def follow(recipe: str, checkout: Path) -> None:
    """Make a recipe's change in a copy."""
    shutil.copytree(RECIPES / recipe / "files", checkout, dirs_exist_ok=True)
    edits = yaml.safe_load((RECIPES / recipe / "edits.yaml").read_text(encoding="utf-8"))
    for name, replacements in edits.items():
        file = checkout / name
        text = file.read_text(encoding="utf-8")
        for edit in replacements:
            assert text.count(edit["find"]) == 1, (name, edit["find"])
            text = text.replace(edit["find"], edit["replace"])
        file.write_text(text, encoding="utf-8")


def run(
    checkout: Path, *command: str, environment: dict[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a program in a copy, with the copy's package."""
    inherited = {
        name: value for name, value in (environment or clean_environment()).items() if not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        [str(SCRIPTS / command[0]), *command[1:]],
        cwd=checkout,
        env=inherited | {"PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def run_tests(checkout: Path, *arguments: str) -> None:
    run(checkout, Path(sys.executable).name, "-m", "pytest", "-q", "-n", "0", "-m", "not adapters", *arguments)


@dataclass(frozen=True)
class Change:
    """A recipe that was followed: the copy of the checkout, and the files that differ from before."""

    checkout: Path
    files: set[str]


def changed_copy(recipe: str, folder: Path) -> Change:
    checkout = folder / "checkout"
    copy_checkout(checkout)
    before = contents(checkout)
    follow(recipe, checkout)
    if recipe == "table":
        run(checkout, "mlops-db", "docs")
    after = contents(checkout)
    return Change(checkout, {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)})


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Change]:
    """The change of each recipe, made when the first test asks for it."""
    return cache(lambda recipe: changed_copy(recipe, tmp_path_factory.mktemp(recipe)))


@pytest.fixture
def table(changes: Callable[[str], Change]) -> Path:
    return changes("table").checkout


@pytest.fixture
def command(changes: Callable[[str], Change]) -> Path:
    return changes("command").checkout


@pytest.fixture
def rule(changes: Callable[[str], Change]) -> Path:
    return changes("rule").checkout


@pytest.mark.parametrize("recipe", HEADINGS)
def test_the_page_lists_the_files_that_change_and_no_other(recipe: str, changes: Callable[[str], Change]) -> None:
    assert sorted(listed(recipe)) == sorted(changes(recipe).files)


def test_the_source_is_clean_after_all_three(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    copy_checkout(checkout)
    for recipe in HEADINGS:
        follow(recipe, checkout)
    run(checkout, "ruff", "check", "--no-cache", ".")
    run(checkout, "ruff", "format", "--no-cache", "--check", ".")
    run(checkout, "lint-imports", "--no-cache")
    run(checkout, "mypy")


# A new table with its API


def test_the_table_is_everywhere(table: Path, empty: Database) -> None:
    environment = empty.environment
    run(table, "mlops-db", "init", environment=environment)
    run(table, "mlops-db", "alembic", "check", environment=environment)
    run(table, "mlops-db", "check", environment=environment)
    run(table, "mlops-db", "docs", "--check", environment=environment)
    status = json.loads(run(table, "mlops-db", "status", "--json", environment=environment).stdout)
    assert "model_notes" in [item["name"] for item in status["objects"] if item["present"]]


def test_its_api_stores_and_reads_a_row(table: Path, empty: Database) -> None:
    run(table, "mlops-db", "init", environment=empty.environment)
    program = "from mlops_db import get_db_manager; db = get_db_manager()\n"
    program += "db.notes.add('Seen.', model_name='fraud'); print(db.notes.latest(model_name='fraud')[0].note)"
    done = run(table, Path(sys.executable).name, "-c", program, environment=empty.environment)
    assert done.stdout == "Seen.\n"
    assert empty.query("SELECT model_name, note FROM model_notes") == [("fraud", "Seen.")]


def test_its_schema_is_enough_for_autogenerate(table: Path, empty: Database, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(table, checkout)
    (revision,) = (RECIPES / "table" / "files" / "migrations" / "versions").glob("*.py")
    (checkout / "migrations" / "versions" / revision.name).unlink()
    environment = empty.environment
    run(checkout, "mlops-db", "alembic", "upgrade", "head", environment=environment)

    run(checkout, "mlops-db", "alembic", "revision", "--autogenerate", "-m", "model notes", environment=environment)

    written = (checkout / "migrations" / "versions" / revision.name).read_text(encoding="utf-8")
    _, _, body = written.partition("def upgrade")
    assert body == revision.read_text(encoding="utf-8").partition("def upgrade")[2]


def test_its_revision_keeps_the_rules(table: Path, empty: Database) -> None:
    done = run(table, "mlops-db", "lint", environment=empty.environment)
    assert "no rows for" not in done.stderr


def test_the_tests_that_know_all_tables_pass_with_one_more(table: Path) -> None:
    run_tests(
        table,
        "tests/storage/test_model_notes.py", "tests/schema", "tests/admin/test_api_docs.py", "tests/cli/test_init.py",
        "tests/cli/test_status.py", "tests/docs/test_examples.py", "-m", "not slow",
    )  # fmt: skip


# A new command


def test_the_help_lists_the_command_and_it_runs(command: Path, head: Database) -> None:
    assert "\n    size " in run(command, "mlops-db", "--help").stdout
    assert "\nusage: mlops-db size " in "\n" + run(command, "mlops-db", "size", "--help").stdout
    answer = json.loads(run(command, "mlops-db", "size", "--json", environment=head.environment).stdout)
    assert answer["bytes"] > 0
    assert " size" in run(command, "mlops-db", "completion", "bash").stdout


def test_the_tests_that_know_all_commands_pass_with_one_more(command: Path) -> None:
    run_tests(
        command,
        "tests/cli/test_size.py", "tests/cli/test_main.py", "tests/cli/test_json.py", "-k",
        "size or help or readme or every_command",
    )  # fmt: skip


# A new lint rule


@pytest.mark.parametrize("accepted", [False, True], ids=["found", "accepted"])
def test_a_revision_that_breaks_the_rule_is_found(
    rule: Path, empty: Database, tmp_path: Path, *, accepted: bool
) -> None:
    ini = tmp_path / "alembic.ini"
    shutil.copy(rule / "alembic.ini", ini)
    shutil.copytree(
        rule / "migrations",
        tmp_path / "migrations",
        ignore=shutil.ignore_patterns("0*", "frozen.sha256", "__pycache__"),
    )
    note = "Accepted: cascade, because nobody else has views here.\n" if accepted else ""
    file = add_revision(
        ini, sql("DROP VIEW IF EXISTS v CASCADE"), sql("SELECT 1"), docstring=f"{DOCSTRING}{note}", locks="none."
    )
    assert (versions(ini) / file).is_file()

    environment = empty.environment | {"ALEMBIC_CONFIG": str(ini)}
    done = run(rule, "mlops-db", "lint", environment=environment, code=0 if accepted else 1)

    assert (f"{file}: cascade: line " in done.stdout) is not accepted


def test_the_tests_that_know_all_rules_pass_with_one_more(rule: Path) -> None:
    run_tests(rule, "tests/lint/rules", "tests/lint/test_files.py")
