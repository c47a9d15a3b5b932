"""The source of revisions, parsed for the rules that read it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mlops_db.migration.preview import Description, describe
from mlops_db.project import BASELINE
from mlops_db.revisions.files import UnusableFileError, read_revision_file, read_running_code

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlops_db.revisions.graph import Graph


@dataclass(frozen=True)
class RevisionSource:
    """A revision, as its source declares it.

    Attributes:
        path: the file.
        tree: its syntax tree; empty if it cannot be parsed.
        revision: its id; None if it has no usable one.
        down_revision: the ids that it follows: one, several for a merge, or none.
        error: why it cannot be parsed; None if it can.
    """

    path: Path
    tree: ast.Module
    revision: str | None = None
    down_revision: tuple[str, ...] = ()
    error: SyntaxError | ValueError | None = None

    @classmethod
    def read(cls, path: Path) -> RevisionSource:
        """Parse a file."""
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        except (SyntaxError, ValueError) as error:
            return cls(path, ast.Module([], []), error=error)
        try:
            usable = read_revision_file(path)
        except UnusableFileError:
            return cls(path, tree)
        return cls(path, tree, usable.id, usable.parents)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @cached_property
    def docstring(self) -> str:
        """Its docstring; empty if there is none."""
        return ast.get_docstring(self.tree) or ""

    @cached_property
    def description(self) -> Description:
        """Its docstring, taken apart."""
        return describe(self.docstring)

    @property
    def is_baseline(self) -> bool:
        """Whether it is one of the baseline, which some rules do not hold for."""
        return self.revision is not None and self.revision <= BASELINE

    @property
    def works_from(self) -> str | None:
        """The revision that code must know to work after this one, by its docstring; None if all code works."""
        return read_running_code(self.docstring, self.revision or "")

    def accepts(self, rule: str) -> bool:
        """Whether its docstring accepts to break this rule: `Accepted: loss, because ...; two-tables, because ...`."""
        accepted = self.description.sections.get("Accepted", "")
        return re.search(rf"\b{rule}, because \S", accepted) is not None

    def function(self, name: str) -> ast.FunctionDef | None:
        """Its function of this name."""
        found = [node for node in self.tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        return found[-1] if found else None

    @property
    def is_one_way(self) -> bool:
        """Whether its downgrade does nothing on purpose: then its docstring has the reason."""
        downgrade = self.function("downgrade")
        return downgrade is not None and all(map(_does_nothing, downgrade.body))


@dataclass(frozen=True)
class Project:
    """The revisions of a folder.

    Attributes:
        files: its files, in the order of their names.
        graph: the revisions and their order.
        acceptable: the names of the rules that a revision may break on purpose.
        is_beside: whether they are not ours, but in a folder beside ours.
    """

    files: Sequence[RevisionSource]
    graph: Graph
    acceptable: Sequence[str]
    is_beside: bool = False

    @cached_property
    def parsed(self) -> list[RevisionSource]:
        """The files that are Python."""
        return [file for file in self.files if file.error is None]


def _does_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, (ast.Pass, ast.Return, ast.Raise)) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
