"""The Python blocks of the pages, and examples/, are typed and run; those that need more run in tests/adapters."""

import sys
from pathlib import Path

import pytest

from support.database import LONG_TIMEOUT_S, ROOT, Database, clean_environment, run_command
from support.examples import PLAIN, TOOLS, example

pytestmark = pytest.mark.one_postgresql

PAGES = ("README.md", "docs/storing.md", "docs/operating.md", "docs/moving-in.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_are_typed(page: str, tmp_path: Path) -> None:
    source = example(page, PLAIN, *TOOLS)
    assert source.strip()
    file = tmp_path / f"{Path(page).stem}.py"
    file.write_text(source, encoding="utf-8")
    assert_typed(file)


@pytest.mark.slow
def test_the_programs_of_examples_are_typed() -> None:
    assert_typed(*(ROOT / "examples").rglob("*.py"))


def assert_typed(*files: Path) -> None:
    # Neither Airflow nor FastAPI is installed here, and without them their decorators and classes have no type.
    done = run_command(
        "mypy",
        "--strict",
        "--allow-untyped-decorators",
        "--allow-subclassing-any",
        f"--config-file={ROOT / 'pyproject.toml'}",
        *map(str, files),
        environment=clean_environment(MYPYPATH=str(ROOT / "src")),
        timeout=LONG_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/storing.md"])
def test_the_examples_run(page: str, head: Database, tmp_path: Path) -> None:
    file = tmp_path / f"{Path(page).stem}.py"
    file.write_text(example(page, PLAIN), encoding="utf-8")
    done = run_command(sys.executable, str(file), environment=head.environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert head.value("SELECT status FROM model_versions WHERE mlflow_run_id = '7c0f3a'") == "production"
