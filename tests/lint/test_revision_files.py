"""What `file_findings` tells of revisions from their files alone."""

import re
import tempfile
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlops_db.lint.revision_files import Finding, file_findings
from support.database import ROOT
from support.projects import copy_project, source, versions

pytestmark = pytest.mark.one_postgresql

UP, DOWN = "op.execute('SELECT 1')", "op.execute('SELECT 2')"
FIRST = source("0001", None, UP, DOWN)
SECOND = source("0002", "0001", UP, DOWN)


def findings_in(folder: Path, files: dict[str, str]) -> list[Finding]:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return file_findings(folder)


def findings(files: dict[str, str]) -> list[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        return findings_in(Path(folder), files)


def found(**files: str) -> list[str]:
    """The findings as lines; a keyword is a file's name without `_` in front and `.py`."""
    return list(map(str, findings({f"{name[1:]}.py": text for name, text in files.items()})))


def changed(*pairs: tuple[str, str], text: str = FIRST) -> str:
    """The source of a revision with parts replaced; each has to be there."""
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def of_first(text: str) -> list[str]:
    return [line.removeprefix("0001_first.py: ") for line in found(_0001_first=text)]


def test_this_project_s_revisions_have_no_findings() -> None:
    assert file_findings(versions(ROOT / "alembic.ini")) == []


def test_a_folder_without_revisions_has_no_findings(tmp_path: Path) -> None:
    assert file_findings(tmp_path) == []


def test_good_files_have_no_findings() -> None:
    assert found(_0001_first=FIRST, _0002_second=SECOND) == []


def test_a_finding_is_one_line_with_file_rule_and_remedy() -> None:
    finding = Finding("0005_x.py", "name", "it is wrong", "Rename it.")

    assert str(finding) == "0005_x.py: name: it is wrong. Rename it."


# One head, linear


def test_two_heads_are_told_once_with_both_remedies() -> None:
    third = source("0003", "0001", UP, DOWN)

    (line,) = found(_0001_first=FIRST, _0002_second=SECOND, _0003_third=third)

    assert line == (
        "0003_third.py: one-head: there are 2 heads: 0002, 0003. Let it follow the other one (down_revision and the "
        "number), or merge them with `alembic merge`."
    )


def test_two_files_with_one_number_are_no_two_heads() -> None:
    """That both have it is found in the graph, and merging them is no way out."""
    other = source("0002", "0001", UP, DOWN)

    assert found(_0001_first=FIRST, _0002_one=SECOND, _0002_other=other) == []


def test_branches_that_are_merged_on_purpose_are_linear_enough() -> None:
    third = source("0003", "0001", UP, DOWN)
    merge = source("0004", ("0002", "0003"), UP, DOWN)

    assert found(_0001_first=FIRST, _0002_second=SECOND, _0003_third=third, _0004_merge=merge) == []


@pytest.mark.parametrize("before", ["0002", None, "0009"], ids=["itself", "nothing", "unknown"])
def test_a_revision_that_does_not_follow_the_number_before_is_found(before: str | None) -> None:
    lines = found(_0001_first=FIRST, _0002_second=source("0002", before, UP, DOWN))

    follows = f"it follows {before or 'nothing'}, not 0001"
    assert f"0002_second.py: linear: {follows}. Set down_revision to the revision with the number before." in lines


def test_a_first_revision_that_follows_one_is_found() -> None:
    lines = found(_0001_first=source("0001", "0000", UP, DOWN))

    assert lines == [
        "0001_first.py: linear: it follows 0000, not nothing. Set down_revision to the revision with the number before."
    ]


def test_numbers_may_be_left_out() -> None:
    assert found(_0001_first=FIRST, _0007_later=source("0007", "0001", UP, DOWN)) == []


# Names


# Without a deadline: files are written, and the machine may be busy.
@settings(deadline=None)
@given(st.from_regex(r"[0-9]{4}(_[a-z0-9]{1,8}){1,8}", fullmatch=True))
def test_a_name_of_the_scheme_is_no_finding(stem: str) -> None:
    assert findings({f"{stem}.py": source(stem[:4], None, UP, DOWN)}) == []


@settings(deadline=None)
@given(st.one_of(
    st.from_regex(r"[0-9]{0,6}_?[A-Za-z0-9_ -]{0,12}", fullmatch=True),
    st.from_regex(r"\d{4}_\w{1,8}", fullmatch=True),
))  # fmt: skip
def test_any_other_name_is_a_finding(stem: str) -> None:
    assume(re.fullmatch(r"[0-9]{4}(_[a-z0-9]+)+", stem, re.ASCII) is None)

    (finding,) = findings({f"{stem}.py": source(stem[:4], None, UP, DOWN)})

    assert str(finding) == f"{stem}.py: name: the file is not named NNNN_lower_case_words.py. Rename it."


@pytest.mark.parametrize(
    ("assignment", "told"),
    [('revision = "0002"', "'0002'"), ('revision = "a1b2c3"', "'a1b2c3'"), ('revision: str = "0003"', "'0003'"),
     ("revision = 1", "None"), ("revision = None", "None"), ("", "None"), ('revision = "00" + name', "None")],
)  # fmt: skip
def test_a_revision_id_that_is_not_the_number_is_found(assignment: str, told: str) -> None:
    (line,) = of_first(changed(('\nrevision = "0001"', f"\n{assignment}")))

    assert line == (
        f"name: its revision is {told}, its number 0001. Make both the same: `mlops-db` reads the revisions from the "
        "files' names."
    )


@pytest.mark.parametrize("assignment", ['revision: str = "0001"', 'revision: "Final[str]" = "0001"'])
def test_an_annotated_revision_id_is_read(assignment: str) -> None:
    assert of_first(changed(('\nrevision = "0001"', f"\n{assignment}"))) == []


# Syntax


def test_a_file_that_is_not_python_is_found_and_the_others_are_still_told() -> None:
    lines = found(_0001_first="def upgrade(:\n", _0002_second=changed(("Why: ", "Why not: "), text=SECOND))

    assert lines[0].startswith("0001_first.py: syntax: line 1: ")
    assert any(line.startswith("0002_second.py: docstring: ") for line in lines)


@pytest.mark.parametrize("content", [b'"""M\xfcll."""\n', b"revision\0\n"], ids=["not UTF-8", "NUL"])
def test_a_file_that_is_not_text_is_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0001_first.py").write_bytes(content)

    assert "syntax" in {finding.rule for finding in file_findings(tmp_path)}


# Docstring


LACKS = "Say what changes, why, which locks are taken and for how long, and what downgrade loses."


@pytest.mark.parametrize("section", ["Why", "Locks", "Loss on downgrade"])
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_section_that_is_missing_or_empty_is_found(section: str, how: str) -> None:
    text = re.sub(rf"(?m)^{section}: .*\n", "" if how == "gone" else f"{section}:\n", FIRST)

    assert of_first(text) == [f"docstring: its docstring lacks {section}. {LACKS}"]


@pytest.mark.parametrize("docstring", ["", '"""Change something."""\n'], ids=["none", "only a title"])
def test_a_docstring_that_lacks_everything_is_found(docstring: str) -> None:
    text = re.sub(r'(?s)^""".*?"""\n', docstring, FIRST)
    title = "" if docstring else "a title, "

    assert of_first(text) == [f"docstring: its docstring lacks {title}Why, Locks, Loss on downgrade. {LACKS}"]


@pytest.mark.parametrize(
    "prose",
    ["<the reason for this change, in a sentence or two>", "<which lock,\n    and for how long>", "<todo>"],
)
def test_the_template_s_prose_is_found(prose: str) -> None:
    assert of_first(changed(("a test asks for it.", prose))) == [
        "docstring: its docstring still holds the template's <...>. Fill it in."
    ]


OUTSIDE = {
    "autocommit_block": "with op.get_context().autocommit_block():\n    op.execute('VACUUM')",
    "create_index_concurrently": "op.create_index_concurrently('i', 't', ['c'])",
}


@pytest.mark.parametrize("where", OUTSIDE)
@pytest.mark.parametrize("way", ["up", "down"])
def test_locks_that_no_check_can_see_have_to_be_named(where: str, way: str) -> None:
    up, down = (OUTSIDE[where], DOWN) if way == "up" else (UP, OUTSIDE[where])

    (line,) = of_first(source("0001", None, up, down, locks="some, for a moment."))

    assert line == (
        f"docstring: its Locks name none, and what runs in {where} takes some. "
        "Name the strongest of them, such as SHARE UPDATE EXCLUSIVE: no check can see it."
    )
    assert of_first(source("0001", None, up, down, locks="SHARE UPDATE EXCLUSIVE on t.")) == []


@pytest.mark.parametrize("prose", ["scores < 0 or > 1", "1 <> 2", "a -> b", "x <= 3 and y >= 4", "f(x) << 3"])
def test_comparisons_are_not_the_template_s_prose(prose: str) -> None:
    assert of_first(changed(("a test asks for it.", prose))) == []


def test_a_fresh_revision_is_told_to_be_filled_in_and_nothing_else(tmp_path: Path) -> None:
    """`alembic revision` has to leave only what its author alone can know."""
    ini = copy_project(tmp_path)
    head = max(path.name[:4] for path in versions(ini).glob("*.py"))

    command.revision(Config(ini), message="Add a column")

    fresh = f"{int(head) + 1:04}_add_a_column.py"
    assert [(finding.file, finding.rule) for finding in file_findings(versions(ini))] == [
        (fresh, "docstring"),
        (fresh, "downgrade"),
    ]


# Imports


@pytest.mark.parametrize(
    "statement",
    ["import re, json", "from datetime import UTC", "import sqlalchemy.orm", "from alembic import context",
     "from sqlalchemy.dialects import postgresql", "from sqlalchemy.dialects.postgresql import JSONB",
     "from __future__ import annotations"],
)  # fmt: skip
def test_alembic_sqlalchemy_and_the_standard_library_may_be_imported(statement: str) -> None:
    assert of_first(changed(("import sqlalchemy as sa\n", f"{statement}\nimport sqlalchemy as sa\n"))) == []


MOVING = {
    "import mlops_db": "mlops_db",
    "import mlops_db.schema.views as v": "mlops_db.schema.views",
    "from mlops_db.schema import head": "mlops_db.schema",
    "import os, psycopg2": "psycopg2",
    "from sqlalchemy_utils import UUID": "sqlalchemy_utils",
    "from . import other": ".",
    "from ..versions import other": "..versions",
    "from .other import thing": ".other",
    "import migrations.versions": "migrations.versions",
}


@pytest.mark.parametrize("where", ["at the top", "in upgrade"])
@pytest.mark.parametrize(("statement", "module"), MOVING.items())
def test_an_import_of_what_can_change_is_found(statement: str, module: str, where: str) -> None:
    if where == "at the top":
        text = changed(("import sqlalchemy as sa\n", f"import sqlalchemy as sa\n{statement}\n"))
    else:
        text = source("0001", None, f"{statement}\n{UP}", DOWN)

    (line,) = of_first(text)

    assert line == (
        f"imports: it imports {module}, which can change after the revision has run. Write into the revision what it "
        "needs, as literals."
    )


# Downgrade


EMPTY = [
    *("pass", "...", "return", "return None", "raise NotImplementedError", "pass\n'no docstring'", "# nothing\npass"),
    *('""""""', '"""  """'),
]


@pytest.mark.parametrize("body", EMPTY)
def test_an_empty_downgrade_without_a_reason_is_found(body: str) -> None:
    (line,) = of_first(source("0001", None, UP, body))

    assert line == (
        "downgrade: its downgrade is empty. Take back what upgrade does, or say in a docstring of downgrade() why that "
        "cannot be."
    )


@pytest.mark.parametrize("body", ["", "pass", "return", "raise NotImplementedError"])
def test_an_empty_downgrade_with_a_reason_is_no_finding(body: str) -> None:
    assert of_first(source("0001", None, UP, f'"""Nothing: the rows cannot be told apart any more."""\n{body}')) == []


def test_a_missing_downgrade_is_found() -> None:
    assert of_first(changed(("def downgrade", "def downgrad"))) == [
        "downgrade: it has no downgrade. Take back what upgrade does."
    ]


def test_a_missing_upgrade_is_found() -> None:
    assert len(of_first(changed(("def upgrade", "def upgrad")))) == 1


def test_each_fault_of_a_file_is_told() -> None:
    text = changed(("Why: ", "Why not: "), ("import sqlalchemy as sa", "import mlops_db"), ('"0001"', '"0002"'))

    rules = [finding.rule for finding in findings({"0001_first.py": text.replace(DOWN, "pass")})]

    assert rules == ["name", "docstring", "imports", "downgrade"]
