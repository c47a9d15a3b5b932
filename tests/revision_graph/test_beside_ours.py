"""A project beside ours, whose revisions are in the same alembic_version: accepted by what its run has recorded."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_db import DatabaseManager
from mlops_db.errors import BehindHeadError, OutdatedCodeError, RefusedError, UnknownRevisionError
from mlops_db.migration import commands
from mlops_db.migration.commands import run_command
from mlops_db.migration.running_code import record_of
from mlops_db.revisions.files import RevisionFile
from mlops_db.revisions.graph import Graph, revisions
from mlops_db.revisions.running_code import RunningCode
from support.database import Database
from support.process import assert_failed
from support.projects import Checkout, source, sql

pytestmark = pytest.mark.full_postgresql

HEAD, BEFORE = revisions()[-1].id, revisions()[-2].id
ROWS = "SELECT version_num FROM alembic_version ORDER BY 1"
TABLE = sql("CREATE TABLE acme (id int REFERENCES model_versions)"), sql("DROP TABLE acme")


@dataclass
class Beside:
    """A project with our revisions, as in `ours`, and its own in another folder."""

    ours: Checkout
    folder: Path

    def add(self, revision: str, before: str | None, depends_on: str | None = None) -> None:
        text = source(revision, before, *(TABLE if before is None else ("pass", "pass")))
        text = text.replace("\ndown_revision", f"\ndepends_on = {depends_on!r}\ndown_revision")
        label = "" if before else f'\nbranch_labels = ("{revision.partition("_")[0]}",)'
        (self.folder / f"{revision}_x.py").write_text(text.replace("\ndepends_on", f"{label}\ndepends_on"), "utf-8")

    def config(self, database: Database) -> Config:
        config = self.ours.config(database.settings)
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"{self.ours.ini.parent}/migrations/versions\n{self.folder}")
        return config

    def upgrade(self, database: Database, revision: str = "heads") -> None:
        run_command(command.upgrade, self.config(database), revision)

    def downgrade(self, database: Database, revision: str) -> None:
        run_command(command.downgrade, self.config(database), revision)


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    """One whose first revision depends on our last one, and whose second one follows the first."""
    project = Beside(Checkout(tmp_path), tmp_path / "acme")
    project.folder.mkdir()
    project.add("acme_0001", None, HEAD)
    project.add("acme_0002", "acme_0001")
    return project


def rows(database: Database) -> list[str]:
    return [row for (row,) in database.query(ROWS)]


def others(database: Database) -> list[str]:
    found: list[str] = database.value("SELECT others FROM mlops_internal.running_code")
    return found


def status(database: Database) -> dict[str, object]:
    done = database.run("mlops-db", "status", "--json")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def works(database: Database) -> None:
    with DatabaseManager(database.settings) as db:
        db.models.register(f"run-{database.value('SELECT count(*) FROM model_versions')}", "1")


# What goes on


def test_code_without_their_files_goes_on(head: Database, beside: Beside) -> None:
    beside.upgrade(head)
    assert (rows(head), others(head)) == (["acme_0002"], ["acme_0002"])  # which stands for ours, too
    works(head)
    found = status(head)
    assert (found["state"], found["current"], found["others"], found["pending"]) == ("head", HEAD, ["acme_0002"], [])
    assert "others    acme_0002 (beside ours)" in head.run("mlops-db", "status").stdout
    for name in ("init", "maintain", "check", "history"):
        done = head.run("mlops-db", name)
        assert done.returncode == 0, done.stderr
    assert "theirs: table public.acme" in head.run("mlops-db", "check").stdout
    assert_failed(head.run("mlops-db", "adopt"), f"is under Alembic already, at revision {HEAD}")


@pytest.mark.slow
@pytest.mark.parametrize("theirs", [("acme_0001",), ("acme_0001", "acme_0002")])
def test_init_runs_our_line_alone(head: Database, beside: Beside, theirs: tuple[str, ...]) -> None:
    """Theirs may depend on an earlier one of ours, or on none."""
    commands.downgrade(head.settings, BEFORE)
    beside.add("acme_0001", None, BEFORE if len(theirs) == 1 else None)
    beside.upgrade(head, theirs[-1])
    with pytest.raises(BehindHeadError):
        works(head)
    assert [one["id"] for one in status(head)["pending"]] == [HEAD]  # type: ignore[attr-defined]

    commands.upgrade(head.settings)

    assert (rows(head), others(head)) == ([HEAD, theirs[-1]], [theirs[-1]])
    works(head)
    beside.upgrade(head)
    assert (rows(head), others(head)) == ([HEAD, "acme_0002"], ["acme_0002"])


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_later_release_of_ours(head: Database, beside: Beside, first: str) -> None:
    beside.upgrade(head)
    later = beside.ours.add("pass", running_code="unaffected.")
    beside.add("acme_0003", "acme_0002", later)

    beside.upgrade(head, later if first == "ours" else "acme@head")
    assert rows(head) == ([later, "acme_0002"] if first == "ours" else ["acme_0003"])
    works(head)  # this code has not heard of it
    found = status(head)
    assert (found["state"], found["current"]) == ("newer", later)
    beside.upgrade(head)
    assert (rows(head), others(head)) == (["acme_0003"], ["acme_0003"])
    for arguments in (("alembic", "upgrade", "head"), ("mlops-db", "check")):
        assert_failed(head.run(*arguments), f"at revision '{later}', which this checkout does not have")

    breaking = beside.ours.add("pass", running_code="breaks: everything.")
    beside.upgrade(head)
    with pytest.raises(OutdatedCodeError, match=f"at revision {breaking}"):
        works(head)


# What is refused


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO alembic_version VALUES ('acme_0003')",
        "UPDATE alembic_version SET version_num = 'acme_0001'",
        "UPDATE mlops_internal.running_code SET others = '{}'",
        "ALTER TABLE mlops_internal.running_code DROP COLUMN others",
        "DROP TABLE mlops_internal.running_code",
    ],
)
def test_a_row_that_no_run_has_recorded_is_refused(head: Database, beside: Beside, statement: str) -> None:
    beside.upgrade(head)
    head.query(statement)
    with pytest.raises(UnknownRevisionError, match="which this checkout does not have"):
        works(head)


@pytest.mark.parametrize("arguments", [("downgrade", "base"), ("downgrade", "-1"), ("stamp", BEFORE)])
def test_what_would_revert_or_forget_theirs_needs_their_files(
    head: Database, beside: Beside, arguments: tuple[str, ...]
) -> None:
    beside.upgrade(head)
    assert_failed(head.run("mlops-db", "alembic", *arguments), "is also at acme_0002 of a project beside mlops-db")
    assert rows(head) == ["acme_0002"]


@pytest.mark.slow
def test_a_downgrade_of_ours_does_not_take_theirs_along(head: Database, beside: Beside) -> None:
    beside.upgrade(head)
    with pytest.raises(RefusedError, match="acme_0002 and acme_0001 of a project beside mlops-db would be reverted"):
        beside.downgrade(head, BEFORE)
    assert rows(head) == ["acme_0002"]

    beside.downgrade(head, "acme@base")
    assert (rows(head), others(head)) == ([HEAD], [])
    beside.downgrade(head, BEFORE)
    beside.upgrade(head)
    beside.downgrade(head, "base")
    assert rows(head) == []
    assert head.value("SELECT to_regclass('public.acme') IS NULL")


def test_head_is_not_clear(head: Database, beside: Beside) -> None:
    with pytest.raises(RefusedError, match=f"`head` is not clear, because there are 2: {HEAD} and acme_0002") as found:
        beside.upgrade(head, "head")
    assert found.value.hint == "Name `heads` for all, or the one that is meant: acme@head."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`head` is not clear"),
        ({"head": HEAD, "version_path": "acme"}, f"cannot follow {HEAD}, which is in another folder"),
        ({"head": "acme@head", "version_path": "ours"}, "cannot follow acme_0002, which is in another folder"),
        ({"head": "base", "version_path": "acme"}, "of this branch has no prefix"),
        ({"head": "acme@head", "rev_id": "77"}, "the new revision 77 has no prefix"),
        ({"revisions": (HEAD, "acme@head")}, "which is in another folder"),
    ],
)
def test_no_file_is_written_that_would_be_refused(
    head: Database, beside: Beside, arguments: dict[str, Any], message: str
) -> None:
    config, places = (
        beside.config(head),
        {"acme": beside.folder, "ours": beside.ours.ini.parent / "migrations/versions"},
    )
    if "version_path" in arguments:
        arguments = arguments | {"version_path": str(places[arguments["version_path"]])}
    before = [sorted(place.glob("*.py")) for place in places.values()]
    with pytest.raises(RefusedError, match=re.escape(message)):
        run_command(command.merge if "revisions" in arguments else command.revision, config, **arguments)
    assert [sorted(place.glob("*.py")) for place in places.values()] == before


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"head": "acme@head"}, "acme_0003_x.py"),
        ({"head": "base", "branch_label": "beta", "version_path": "acme"}, "beta_0001_x.py"),
        ({"head": "acme@head", "rev_id": "acme_next"}, "acme_next_x.py"),
        ({"head": HEAD}, f"{int(HEAD) + 1:04}_x.py"),
    ],
)
def test_new_files_have_the_ids_of_their_line(
    head: Database, beside: Beside, arguments: dict[str, str], name: str
) -> None:
    if "version_path" in arguments:
        arguments = arguments | {"version_path": str(beside.folder)}
    run_command(command.revision, beside.config(head), message="x", **arguments)
    place = beside.ours.ini.parent / "migrations/versions" if arguments["head"] == HEAD else beside.folder
    assert (place / name).exists()


# The record


def test_a_record_of_earlier_code_gets_the_column(head: Database, beside: Beside) -> None:
    head.query("ALTER TABLE mlops_internal.running_code DROP COLUMN others")
    works(head)
    assert head.run("mlops-db", "check").returncode == 0
    # As earlier code does.
    head.query("UPDATE mlops_internal.running_code SET heads = heads")
    beside.upgrade(head)
    assert others(head) == ["acme_0002"]


def test_scripts_record_the_same(head: Database, beside: Beside, capsys: pytest.CaptureFixture[str]) -> None:
    config = beside.config(head)
    run_command(command.upgrade, config, f"{HEAD}:acme@head", sql=True)
    head.psql(capsys.readouterr().out)
    assert (rows(head), others(head)) == (["acme_0002"], ["acme_0002"])
    works(head)
    run_command(command.stamp, config, "heads", purge=True)
    assert (rows(head), others(head)) == (["acme_0002"], ["acme_0002"])


@settings(max_examples=50)
@given(st.data())
def test_our_heads_follow_from_the_record_alone(data: st.DataObject) -> None:
    """Whatever theirs depend on, and whatever has run."""
    ours = [f"{number:04}" for number in range(1, data.draw(st.integers(1, 6)) + 1)]
    drawn = data.draw(st.lists(st.sampled_from([None, *ours]), max_size=5))
    theirs = [f"acme_{number:04}" for number in range(1, len(drawn) + 1)]

    def file(id_: str, parent: str | None, depends_on: str | None = None) -> RevisionFile:
        return RevisionFile(
            Path(f"{id_}_x.py"), id_, (parent,) if parent else (), (depends_on,) if depends_on else (), (), None
        )

    line = [file(one, before) for one, before in zip(ours, [None, *ours], strict=False)]
    branch = [file(*three) for three in zip(theirs, [None, *theirs], drawn, strict=False)]
    graph = Graph(line, branch)
    assert graph.faults == ()
    applied = graph.ancestors(*data.draw(st.lists(st.sampled_from([*ours, *theirs]))))
    at = graph.last(applied)

    recorded = record_of(graph, at)
    record = RunningCode(
        at,
        frozenset(recorded["heads"]),
        frozenset(recorded["revisions"]),
        tuple(recorded["works_from"]),
        frozenset(recorded["others"]),
    )
    known = data.draw(st.integers(1, len(ours)))  # of code that may be older

    assert record.is_current
    expected = max((one for one in ours if one in applied), default=None)
    assert record.our_heads(Graph(line[:known])) == ((expected,) if expected else ())
    assert record.others == {one for one in at if one in theirs}
