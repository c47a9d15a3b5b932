"""The worked example of docs/writing-a-revision.md: old and new code beside each other, through three revisions."""

import re
from pathlib import Path

import pytest
from alembic import command

from mlops_db import DatabaseManager
from mlops_db.drift.catalogue import Catalogue, reading
from mlops_db.drift.catalogue import read_catalogue as read
from mlops_db.lint.breaking_changes import breaking_changes
from mlops_db.migration.commands import run_command
from mlops_db.revisions.graph import package_graph, read_graph, revisions
from support.database import ROOT, Database
from support.projects import Checkout, installed, sql, versions
from support.revision_files import file_findings

pytestmark = pytest.mark.one_postgresql

PAGE = (ROOT / "docs" / "writing-a-revision.md").read_text(encoding="utf-8")
HEAD = revisions()[-1].id
OWNER = sql("ALTER TABLE model_versions ADD COLUMN owner text NOT NULL DEFAULT 'unknown'"), "pass"
OLD_CODE = "INSERT INTO model_versions (mlflow_run_id, model_version, owner) VALUES (%s, '1', %s)"
NEW_CODE = "INSERT INTO model_versions (mlflow_run_id, model_version, team) VALUES (%s, '1', %s)"


def add_from_page(checkout: Checkout) -> list[str]:
    """Add the three revisions as the page has them; returns their ids."""
    ids = re.findall(r"^\*\*(\d{4}) (?:adds|moves|takes)", PAGE, re.MULTILINE)
    for revision, before, name in zip(ids, [checkout.head, *ids], ("expand", "move", "contract"), strict=False):
        found = re.search(rf"^```python {name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        assert found is not None
        docstring, body = re.split(r'(?<=\n""")\n', found[1], maxsplit=1)
        head = f'from alembic import op\n\nrevision = "{revision}"\ndown_revision = "{before}"\n'
        if name == "contract":  # the page only tells what its downgrade does
            body += "\n\ndef downgrade() -> None:\n    op.execute('SELECT 1')\n"
        file = versions(checkout.ini) / f"{revision}_{name}.py"
        file.write_text(f"{docstring}\n\n{head}\n{body}", encoding="utf-8")
    return ids


def catalogue(database: Database) -> Catalogue:
    with reading(database.settings) as cursor:
        return read(cursor)


def test_old_and_new_code_work_beside_each_other_until_the_last_step(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    owner = checkout.add(*OWNER, title="owner", running_code="unaffected.")
    expand, move, contract = add_from_page(checkout)
    assert int(expand) == int(HEAD) + 2, "after the revision that adds owner, as further above on the page"
    ours = {f"{revision}_{name}.py" for revision, name in ((expand, "expand"), (move, "move"), (contract, "contract"))}
    findings = file_findings(versions(checkout.ini))
    assert [one for one in findings if one.file in ours and one.rule != "linear"] == []  # 9001 is no number of theirs
    config = checkout.config(head.settings)
    run_command(command.upgrade, config, owner)
    head.query(OLD_CODE, ["before", "ada"])

    def step(revision: str) -> list[str]:
        """Take the step; returns what it breaks."""
        before = catalogue(head)
        run_command(command.upgrade, config, revision)
        return list(breaking_changes(before, catalogue(head)))

    assert step(expand) == []
    head.query(OLD_CODE, ["by old code", "bob"])
    head.query(NEW_CODE, ["by new code", "cat"])
    head.query("UPDATE model_versions SET owner = 'dan' WHERE mlflow_run_id = 'by new code'")
    assert step(move) == []
    head.query("UPDATE model_versions SET team = 'eve' WHERE mlflow_run_id = 'by old code'")
    assert head.query("SELECT mlflow_run_id, owner, team FROM model_versions ORDER BY id") == [
        ("before", "ada", "ada"),
        ("by old code", "eve", "eve"),
        ("by new code", "dan", "dan"),
    ]
    assert step(contract) == ["column model_versions.owner is gone"]
    assert head.query("SELECT team FROM model_versions ORDER BY id") == [("ada",), ("eve",), ("dan",)]
    assert head.value("SELECT works_from FROM mlops_internal.running_code") == [move]


def test_the_first_release_s_code_goes_on_after_the_last_step(head: Database, tmp_path: Path) -> None:
    """Its revisions end with the second one."""
    first, second = Checkout(tmp_path / "first"), Checkout(tmp_path / "second")
    for checkout in first, second:
        checkout.add(*OWNER, title="owner", running_code="unaffected.")
        ids = add_from_page(checkout)
    next(versions(first.ini).glob(f"{ids[2]}_*")).unlink()
    assert read_graph(versions(first.ini)).heads == (ids[1],)
    run_command(command.upgrade, second.config(head.settings), "head")

    with installed(first), DatabaseManager(head.settings) as db:
        assert package_graph().heads == (ids[1],)
        db.models.register("by the first release", "1")
    assert head.value("SELECT count(*) FROM model_versions") == 1
