"""What `mlops-db status`, and the readers of `alembic history`, take for granted about every revision file."""

import ast
import re
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from mlops_db.revisions.graph import revisions
from support.database import ROOT

pytestmark = pytest.mark.full_postgresql

# All of them, whatever their name: one that the scheme misses would be invisible to `mlops-db status`.
FILES = sorted((ROOT / "migrations" / "versions").glob("*.py"))

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def assigned(tree: ast.Module, name: str) -> object:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"no {name}")


@every_file
def test_a_file_is_named_after_its_revision_and_follows_the_one_before(file: Path) -> None:
    position = FILES.index(file)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    number = f"{position + 1:04}"

    assert re.fullmatch(rf"{number}_[a-z0-9_]+\.py", file.name)
    assert assigned(tree, "revision") == number
    assert assigned(tree, "down_revision") == (f"{position:04}" if position else None)


@every_file
def test_a_revision_imports_neither_the_package_nor_anything_it_was_not_frozen_with(file: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a revision is not part of a package"
            imported.add((node.module or "").partition(".")[0])

    assert imported <= {"alembic", "sqlalchemy", *sys.stdlib_module_names}


@every_file
def test_a_docstring_says_why_which_locks_and_what_downgrade_loses(file: Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""

    title, blank, *rest = docstring.splitlines()
    assert title.endswith(".")
    assert blank == ""
    labels = [line.partition(": ")[0] for line in rest if re.match(r"(Why|Locks|Loss on downgrade): \S", line)]
    assert labels == ["Why", "Locks", "Loss on downgrade"]
    assert "<" not in docstring, "a placeholder of script.py.mako is left"


@every_file
def test_a_revision_has_a_downgrade_that_does_something(file: Path) -> None:
    functions = {
        node.name: node.body
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }

    for name in ("upgrade", "downgrade"):
        assert not all(isinstance(statement, ast.Pass) for statement in functions[name])


def test_the_revisions_read_from_file_names_are_alembic_s_in_alembic_s_order() -> None:
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    in_order = list(script.walk_revisions())[::-1]

    assert [(found.id, found.title) for found in revisions()] == [
        tuple(Path(revision.path).stem.split("_", 1)) for revision in in_order
    ]
    assert script.get_heads() == [revisions()[-1].id]
    assert script.get_bases() == [revisions()[0].id]
