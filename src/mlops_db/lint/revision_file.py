"""The source of revisions, parsed for the rules that read it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mlops_db.migration.preview import Description, describe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlops_db.revisions.graph import Graph


@dataclass(frozen=True)
class RevisionFile:
    """A revision as its source says.

    Attributes:
        path: the file.
        tree: its syntax tree; empty if it cannot be parsed.
        error: why it cannot be parsed; None if it can.
    """

    path: Path
    tree: ast.Module
    error: SyntaxError | ValueError | None = None

    @classmethod
    def read(cls, path: Path) -> RevisionFile:
        """Parse a file."""
        try:
            return cls(path, ast.parse(path.read_text(encoding="utf-8"), str(path)))
        except (SyntaxError, ValueError) as error:
            return cls(path, ast.Module([], []), error)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @cached_property
    def revision(self) -> str | None:
        """The literal assigned to `revision`; None if there is none."""
        revision = _assigned(self.tree, "revision")
        return revision if isinstance(revision, str) else None

    @cached_property
    def down_revision(self) -> tuple[str, ...]:
        """The literal assigned to `down_revision`: one id, several for a merge, or none."""
        down = _assigned(self.tree, "down_revision")
        return tuple(name for name in (down if isinstance(down, (tuple, list)) else (down,)) if isinstance(name, str))

    @cached_property
    def docstring(self) -> str:
        """Its docstring; empty if there is none."""
        return ast.get_docstring(self.tree) or ""

    @cached_property
    def description(self) -> Description:
        """Its docstring, taken apart."""
        return describe(self.docstring)

    def accepts(self, rule: str) -> bool:
        """Whether it says that it breaks this rule, and why: `Accepted: loss, because ...; two-tables, because ...`."""
        accepted = self.description.sections.get("Accepted", "")
        return re.search(rf"\b{rule}, because \S", accepted) is not None

    def function(self, name: str) -> ast.FunctionDef | None:
        """Its function of this name."""
        found = [node for node in self.tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        return found[-1] if found else None

    @property
    def is_one_way(self) -> bool:
        """Whether its downgrade does nothing, on purpose: its docstring says why."""
        downgrade = self.function("downgrade")
        return downgrade is not None and all(map(_does_nothing, downgrade.body))


@dataclass(frozen=True)
class Project:
    """The revisions of a folder.

    Attributes:
        files: its files, in the order of their names.
        graph: which revisions there are, and which follows which.
        acceptable: the names of the rules that a revision may break on purpose.
    """

    files: Sequence[RevisionFile]
    graph: Graph
    acceptable: Sequence[str]

    @cached_property
    def parsed(self) -> list[RevisionFile]:
        """The files that are Python."""
        return [file for file in self.files if file.error is None]


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.Pass, ast.Return, ast.Raise)) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _assigned(tree: ast.Module, name: str) -> object:
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == name and value is not None:
            try:
                literal: object = ast.literal_eval(value)
            except ValueError:
                return None
            return literal
    return None
