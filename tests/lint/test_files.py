"""What the rules for files have in common, and the list of all rules."""

import re
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from mlops_db.lint import rules
from mlops_db.lint.rule import COLUMNS, FileRule, Finding, HeadRule, Rule, RunRule
from mlops_db.lint.rules import ACCEPTABLE, RULES
from support.database import ROOT
from support.projects import copy_project, versions
from support.revision_files import DOWN, FIRST, SECOND, changed, file_findings, findings, found

pytestmark = pytest.mark.one_postgresql


def test_this_project_s_revisions_have_no_findings() -> None:
    assert file_findings(versions(ROOT / "alembic.ini")) == []


def test_a_folder_without_revisions_has_no_findings(tmp_path: Path) -> None:
    assert file_findings(tmp_path) == []


def test_good_files_have_no_findings() -> None:
    assert found(_0001_first=FIRST, _0002_second=SECOND) == []


def test_a_finding_is_one_line_with_file_rule_and_remedy() -> None:
    finding = Finding("it is wrong", "Rename it.", "0005_x.py", "name")

    assert str(finding) == "0005_x.py: name: it is wrong. Rename it."


def test_each_module_is_a_rule_of_its_own_name_and_column() -> None:
    modules = sorted(path.stem for path in Path(rules.__file__).parent.glob("*.py") if path.stem != "__init__")

    assert [rule.name.replace("-", "_") for rule in RULES] == modules
    assert {rule.column for rule in RULES} - {""} == {*COLUMNS}  # findings in the schema are of no revision


def described(rule: Rule) -> str:
    assert isinstance(rule, (FileRule, RunRule, HeadRule))
    return (rule.check.__doc__ or "").partition("\n")[0].removeprefix("Find ").rstrip(".")


def test_the_page_lists_each_rule_as_its_module_describes_it() -> None:
    page = (ROOT / "docs" / "writing-a-revision.md").read_text(encoding="utf-8")
    _, _, table = page.partition("| Rule | Column | What it finds |\n")

    rows = table.partition("\n\n")[0].splitlines()[1:]

    assert sorted(rows) == sorted(f"| `{rule.name}` | {rule.column} | {described(rule)} |" for rule in RULES)
    accepted = page.partition("Some rules may be broken on purpose")[2].partition("They are ")[2].partition(". ")[0]
    assert set(re.findall(r"`([a-z-]+)`", accepted)) == set(ACCEPTABLE)


def test_a_fresh_revision_has_only_the_finding_that_it_is_not_filled_in(tmp_path: Path) -> None:
    """`alembic revision` has to leave only what its author alone can know."""
    ini = copy_project(tmp_path)
    head = max(path.name[:4] for path in versions(ini).glob("*.py"))

    command.revision(Config(ini), message="Add a column")

    fresh = f"{int(head) + 1:04}_add_a_column.py"
    assert [(finding.file, finding.rule) for finding in file_findings(versions(ini))] == [
        (fresh, "docstring"),
        (fresh, "downgrade"),
    ]


def test_each_fault_of_a_file_is_reported() -> None:
    text = changed(("Why: ", "Why not: "), ("import sqlalchemy as sa", "import mlops_db"), ('"0001"', '"0002"'))

    broken = [finding.rule for finding in findings({"0001_first.py": text.replace(DOWN, "pass")})]

    assert broken == ["docstring", "downgrade", "imports", "name"]
