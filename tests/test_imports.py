"""The contracts of pyproject.toml about imports hold, and `lint-imports` notices when one does not."""

import subprocess
from pathlib import Path

import pytest

from support.checkout import copy_checkout
from support.database import ROOT, SCRIPTS, clean_environment


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / "lint-imports", "--no-cache"],
        cwd=checkout,
        env=clean_environment(PYTHONPATH=str(checkout / "src")),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = tmp_path_factory.mktemp("imports") / "checkout"
    copy_checkout(checkout)
    return checkout


def test_imports_run_downwards() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        pytest.param("errors", "mlops_db.cli.main", "Imports run downwards", id="the lowest floor imports the highest"),
        pytest.param("storage/turns", "mlops_db.migration.lock", "Imports run downwards", id="siblings"),
        pytest.param("schema/base", "psycopg2", "schema imports no engine", id="an engine"),
        pytest.param("drift/compare", "mlops_db.schema.views", "know no table", id="a table"),
        pytest.param("server/pins", "mlops_db.server.connection", "No circles", id="a circle"),
    ],
)
@pytest.mark.parametrize("only_for_types", [False, True], ids=["runtime", "types"])
def test_an_import_that_breaks_a_contract_is_found(
    copy: Path, module: str, imported: str, contract: str, *, only_for_types: bool
) -> None:
    file = copy / f"src/mlops_db/{module}.py"
    before = file.read_text(encoding="utf-8")
    added = f"import {imported}\n"
    if only_for_types:
        added = f"from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {added}"
    file.write_text(f"{before}\n{added}", encoding="utf-8")
    try:
        done = lint_imports(copy)
    finally:
        file.write_text(before, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout
