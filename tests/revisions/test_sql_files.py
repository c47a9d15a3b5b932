"""The SQL files beside the revisions: which revisions execute each, and that every object version stands once."""

import ast
import re
from pathlib import Path

import pytest

from mlops_db.migration.statements import split_statements
from mlops_db.project import BASELINE
from mlops_db.revisions.files import sql_names
from support.database import ROOT

pytestmark = pytest.mark.full_postgresql

FOLDER = ROOT / "migrations" / "versions"
REVISIONS = {path.name[:4]: path for path in sorted(FOLDER.glob("*.py"))}
AFTER_BASELINE = [path for revision, path in REVISIONS.items() if revision > BASELINE]
FILES = sorted(FOLDER.glob("sql/*"))
USERS = re.compile(r"-- Revisions: (.+)")
MOST_LINES = 119
LONG = 200

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def users(name: str) -> list[str]:
    """The revisions that name a file."""
    return [
        revision
        for revision, path in REVISIONS.items()
        if name in sql_names(ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_there_are_files() -> None:
    assert len(FILES) > 40


@every_file
def test_the_header_of_a_file_says_what_it_does_and_which_revisions_execute_it(file: Path) -> None:
    header, _, statements = file.read_text(encoding="utf-8").partition("\n\n")
    *lines, last = header.splitlines()
    message = USERS.fullmatch(last)

    assert lines
    assert all(line.startswith("-- ") for line in lines)
    assert message is not None
    assert re.sub(r" \(downgrade\)", "", message[1]).split(", ") == users(file.name)
    assert statements.strip()


@every_file
def test_a_file_is_named_after_the_first_revision_that_executes_it(file: Path) -> None:
    assert re.fullmatch(r"\d{4}(_[a-z0-9]+)+\.sql", file.name)
    assert users(file.name)[0] == file.name[:4]


def test_no_long_statement_stands_in_two_files() -> None:
    places: dict[str, str] = {}
    for file in FILES:
        _, _, text = file.read_text(encoding="utf-8").partition("\n\n")
        for statement in split_statements(text):
            if len(statement) > LONG:
                assert places.setdefault(" ".join(statement.split()), file.name) == file.name


@pytest.mark.parametrize("file", AFTER_BASELINE, ids=lambda file: file.stem)
def test_a_revision_reads_like_a_changelog_entry(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert not re.search(r"CREATE (OR REPLACE )?(VIEW|FUNCTION|PROCEDURE)", file.read_text(encoding="utf-8"))
