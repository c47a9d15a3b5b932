"""The contracts of pyproject.toml about imports hold, and `lint-imports` notices when one does not."""

import subprocess
from pathlib import Path

import pytest

from support.database import ROOT, SCRIPTS, clean_environment
from support.projects import copy_checkout

pytestmark = pytest.mark.one_postgresql


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
    ("module", "imported", "only_for_types", "contract"),
    [
        pytest.param("errors", "mlops_db.cli.main", False, "Imports run downwards", id="upwards"),
        pytest.param(
            "storage/transaction_lock", "mlops_db.migration.lock", True, "Imports run downwards", id="siblings"
        ),
        pytest.param("schema/base", "psycopg2", False, "schema imports no engine", id="an engine"),
        pytest.param("drift/compare", "mlops_db.schema.views", False, "know no table", id="a table"),
        pytest.param("server/pins", "mlops_db.server.connection", True, "No circles", id="a circle"),
    ],
)
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
