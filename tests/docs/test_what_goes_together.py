"""The table of docs/storing.md and the extras, as far as nothing needs to be installed for it.

tests/adapters/one_environment.py installs what the table has, and tests it.
"""

import re
from importlib.metadata import metadata, requires
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from support.database import ROOT

pytestmark = pytest.mark.one_postgresql

PAGES = ("README.md", "docs/storing.md", "docs/operating.md", "docs/testing.md")
EXTRAS = sorted(metadata("mlops-db").get_all("Provides-Extra", []))
NEEDED = {"SQLAlchemy", "alembic", "pandas", "evidently", "mlflow", "apache-airflow"}


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    """A row for each Python, by the names of the columns."""
    page = (ROOT / "docs" / "storing.md").read_text(encoding="utf-8")
    heading, _, *rows = (
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in page[page.index("| Python |") :].partition("\n\n")[0].splitlines()
    )
    return [dict(zip(heading, row, strict=True)) for row in rows]


def test_its_pythons_are_those_that_are_tested(table: list[dict[str, str]]) -> None:
    workflow: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert [row["Python"] for row in table] == workflow["jobs"]["adapters"]["strategy"]["matrix"]["python"]


def test_it_has_a_version_of_each_tool(table: list[dict[str, str]]) -> None:
    for row in table:
        assert row.keys() >= NEEDED
        for package, version in row.items():
            assert re.fullmatch(r"\d+(\.\w+)+", version), (package, version)


def test_what_the_extras_allow_is_what_was_tested(table: list[dict[str, str]]) -> None:
    asked = [Requirement(line) for line in requires("mlops-db") or []]
    for row in table:
        environments = [{"extra": extra, "python_version": row["Python"]} for extra in ("", "evidently", "airflow")]
        versions = {name.lower(): version for name, version in row.items()}
        found = [
            requirement
            for requirement in asked
            if requirement.name.lower() in versions
            and any(requirement.marker is None or requirement.marker.evaluate(each) for each in environments)
        ]
        assert {requirement.name.lower() for requirement in found} >= {"sqlalchemy", "alembic", "pandas", "evidently"}
        for requirement in found:
            assert requirement.specifier.contains(versions[requirement.name.lower()]), requirement


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_is_named_where_it_is_needed(extra: str) -> None:
    output = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    named = {name for found in re.findall(r"mlops-db\[([a-z,]+)\]", output) for name in found.split(",")}
    assert extra in named
