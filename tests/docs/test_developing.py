"""docs/developing.md shows the house as it is: the floors, the folders and the files that it names."""

import re

import pytest

from support.database import ROOT

pytestmark = pytest.mark.one_postgresql

PAGE = (ROOT / "docs" / "developing.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "mlops_db"


def test_the_picture_has_the_floors_of_the_import_linter() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.findall(r'"(.+)"', settings.partition("\nlayers = [\n")[2].partition("\n]\n")[0])

    picture = PAGE.partition("```mermaid\n")[2].partition("```")[0]
    groups = {
        group: set(re.findall(r'^ +(\w+)\["', body, re.MULTILINE))
        for group, body in re.findall(r"^ +subgraph (\w+) .*?\n(.*?)^ +end$", picture, re.MULTILINE | re.DOTALL)
    }
    (arrows,) = re.findall(r"^ +(\w+ --> .*)$", picture, re.MULTILINE)
    floors = [groups.get(name, {name}) for name in arrows.split(" --> ")]

    assert floors == [set(layer.split(" | ")) for layer in layers]
    assert set.union(*floors) == set(re.findall(r'(\w+)\["<b>\1</b>', picture))


def test_the_table_of_folders_has_each_part_of_the_package() -> None:
    rows = re.findall(r"^\| `src/mlops_db/([\w/.]+)` \|", PAGE.partition("## Tests")[0], re.MULTILINE)
    parts = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    names = [f"{path.name}/" if path.is_dir() else path.name for path in parts if not path.name.startswith("__")]
    assert sorted(rows) == sorted(names)


@pytest.mark.parametrize("page", [PAGE, CONTRIBUTING], ids=["developing", "contributing"])
def test_the_folders_and_files_that_it_names_exist(page: str) -> None:
    recipes = page.partition("\n## Recipes\n")[2].partition("\n## Names\n")[0]
    paths = r"(?<![\w/])(?:src|tests|migrations|docs|benchmarks|\.github)/[\w/.-]*[\w/]"  # also within a command
    named = set(re.findall(paths, page.replace(recipes, ""))) - {"benchmarks/NAME.py"}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_each_part_of_the_package_has_tests_of_its_name() -> None:
    for part in PACKAGE.iterdir():
        if (part / "__init__.py").exists() and part.name != "demo":
            assert (ROOT / "tests" / {"revisions": "revision_graph"}.get(part.name, part.name)).is_dir(), part.name


def test_its_names_answer_the_first_questions() -> None:
    assert "pg_try_advisory" in (PACKAGE / "migration" / "lock.py").read_text(encoding="utf-8")
    assert "FileRule" in (PACKAGE / "lint" / "rules" / "__init__.py").read_text(encoding="utf-8")
    assert "monitoring_metrics" in "".join(
        path.read_text(encoding="utf-8") for path in (PACKAGE / "storage" / "metrics").glob("*.py")
    )
