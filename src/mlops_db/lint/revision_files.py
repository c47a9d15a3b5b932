"""What can be told of revisions from their files alone: names, order, docstrings, imports, downgrades."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.migration.preview import SECTIONS, describe
from mlops_db.revisions.files import sql_folder, sql_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FILE_NAME = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.py")
# What a revision may import: what does not change under it with this project.
STEADY = {"alembic", "sqlalchemy", *sys.stdlib_module_names}

# From the weakest to the strongest, as the manual lists them (13.3.1 Table-Level Locks).
LOCK_MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
_BY_LENGTH = sorted(LOCK_MODES, key=len, reverse=True)
# What commits the revision so far, and leaves its statements to commit by themselves.
OUTSIDE = {"autocommit_block", "create_index_concurrently"}
# The rules that a revision may break on purpose, with a reason: there, the right thing to do can be the rarer one.
ACCEPTABLE = ("loss", "running-code", "two-tables", "whole-table")
_ACCEPTED = re.compile(rf"\b({'|'.join(ACCEPTABLE)}), because \S")


@dataclass(frozen=True)
class Finding:
    """Something wrong with a revision.

    Attributes:
        file: the revision's file name.
        rule: the rule that it breaks.
        message: what is wrong, in one line.
        remedy: what to do about it, in one line.
    """

    file: str
    rule: str
    message: str
    remedy: str

    def __str__(self) -> str:
        """The finding in one line."""
        return f"{self.file}: {self.rule}: {self.message}. {self.remedy}"


@dataclass(frozen=True)
class RevisionFile:
    """A revision as its source says.

    Attributes:
        path: the file.
        tree: its syntax tree.
        revision: the literal assigned to `revision`; None if there is none.
        down_revision: the literal assigned to `down_revision`: one id, several for a merge, or none.
    """

    path: Path
    tree: ast.Module
    revision: str | None
    down_revision: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> RevisionFile:
        """Parse a file.

        Raises:
            SyntaxError: it is not Python.
        """
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        revision = _assigned(tree, "revision")
        down = _assigned(tree, "down_revision")
        down_revision = down if isinstance(down, (tuple, list)) else (down,)
        return cls(
            path,
            tree,
            revision if isinstance(revision, str) else None,
            tuple(name for name in down_revision if isinstance(name, str)),
        )


def file_findings(folder: Path) -> list[Finding]:
    """Every finding that needs no database, for the files of a versions folder."""
    files, findings = [], []
    for path in sorted(folder.glob("*.py")):
        try:
            files.append(RevisionFile.read(path))
        except SyntaxError as error:  # noqa: PERF203  (each file has its own)
            findings.append(Finding(path.name, "syntax", f"line {error.lineno}: {error.msg}", "Mend it."))
        except (UnicodeDecodeError, ValueError) as error:
            findings.append(Finding(path.name, "syntax", f"it is not Python in UTF-8: {error}", "Save it as that."))
    findings.extend(_order_findings(files))
    named = {name for file in files for name in sql_names(file.tree)}
    for file in files:
        findings.extend(_name_findings(file))
        findings.extend(_sql_file_findings(file, named))
        findings.extend(_docstring_findings(file))
        findings.extend(_import_findings(file))
        findings.extend(_downgrade_findings(file))
    return findings


def _order_findings(files: Sequence[RevisionFile]) -> Iterator[Finding]:
    parents = {parent for file in files for parent in file.down_revision}
    heads = list({file.revision: file for file in files if file.revision not in parents}.values())
    if len(heads) > 1:
        names = ", ".join(str(file.revision) for file in heads)
        yield Finding(
            heads[-1].path.name, "one-head", f"there are {len(heads)} heads: {names}",
            "Let it follow the other one (down_revision and the number), or merge them with `alembic merge`.",
        )  # fmt: skip
    known: list[str | None] = []
    for file in files:
        # Any revision that came before will do: two that follow the same one make two heads, unless they are merged.
        strange = [parent for parent in file.down_revision if parent not in known]
        if strange or (known and not file.down_revision):
            before = known[-1] if known else "nothing"
            message = f"it follows {' and '.join(strange) or 'nothing'}, not {before}"
            remedy = "Set down_revision to the revision with the number before."
            yield Finding(file.path.name, "linear", message, remedy)
        known.append(file.revision)


def _name_findings(file: RevisionFile) -> Iterator[Finding]:
    match = FILE_NAME.fullmatch(file.path.name)
    if match is None:
        yield Finding(file.path.name, "name", "the file is not named NNNN_lower_case_words.py", "Rename it.")
    elif file.revision != match["number"]:
        yield Finding(
            file.path.name, "name", f"its revision is {file.revision!r}, its number {match['number']}",
            "Make both the same: `mlops-db` reads the revisions from the files' names.",
        )  # fmt: skip


def _sql_file_findings(file: RevisionFile, named: set[str]) -> Iterator[Finding]:
    folder = sql_folder(file.path)
    for name in sql_names(file.tree):
        if not (folder / name).is_file():
            yield Finding(
                file.path.name, "sql-file", f"it names sql/{name}, which is not there",
                "Restore the file, or correct its name.",
            )  # fmt: skip
    if file.revision:
        for path in sorted(folder.glob(f"{file.revision}_*.sql")):
            if path.name not in named:
                yield Finding(
                    file.path.name, "sql-file", f"no revision names sql/{path.name}",
                    f'Write op.execute_file("{path.name}") in the revision, or delete the file.',
                )  # fmt: skip


def _docstring_findings(file: RevisionFile) -> Iterator[Finding]:
    docstring = ast.get_docstring(file.tree) or ""
    description = describe(docstring)
    missing = [] if description.title else ["a title"]
    missing += [section for section in SECTIONS if not description.sections.get(section)]
    if missing:
        yield Finding(
            file.path.name, "docstring", f"its docstring lacks {', '.join(missing)}",
            "Say what changes, why, which locks are taken and for how long, and what downgrade loses.",
        )  # fmt: skip
    used = sorted(OUTSIDE & {node.attr for node in ast.walk(file.tree) if isinstance(node, ast.Attribute)})
    if used and "Locks" not in missing and strongest_lock(description.sections["Locks"]) < 0:
        yield Finding(
            file.path.name, "docstring", f"its Locks name none, and what runs in {used[0]} takes some",
            "Name the strongest of them, such as SHARE UPDATE EXCLUSIVE: no check can see it.",
        )  # fmt: skip
    accepted = description.sections.get("Accepted")
    if accepted is not None and not accepted_rules(docstring):
        yield Finding(
            file.path.name, "docstring", "its Accepted names no rule with a reason",
            f"Write `Accepted: <rule>, because <reason>`; the rule is one of {', '.join(ACCEPTABLE)}.",
        )  # fmt: skip
    if re.search(r"<[a-z][^<>]*>", docstring):
        yield Finding(file.path.name, "docstring", "its docstring still holds the template's <...>", "Fill it in.")


def accepted_rules(docstring: str) -> list[str]:
    """The rules that a revision says it breaks, and why: `Accepted: loss, because ...; two-tables, because ...`."""
    return _ACCEPTED.findall(describe(docstring).sections.get("Accepted", ""))


def strongest_lock(declaration: str) -> int:
    """The strongest lock mode that the text names, as its place in LOCK_MODES; -1 for none."""
    named = -1
    for mode in _BY_LENGTH:  # ACCESS SHARE before SHARE, which is a part of it
        if mode in declaration:
            named = max(named, LOCK_MODES.index(mode))
            declaration = declaration.replace(mode, "")
    return named


def _import_findings(file: RevisionFile) -> Iterator[Finding]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        else:
            continue
        for module in modules:
            if module.partition(".")[0] not in STEADY:
                yield Finding(
                    file.path.name, "imports", f"it imports {module}, which can change after the revision has run",
                    "Write into the revision what it needs, as literals.",
                )  # fmt: skip


def _downgrade_findings(file: RevisionFile) -> Iterator[Finding]:
    functions = {node.name: node for node in file.tree.body if isinstance(node, ast.FunctionDef)}
    for name, remedy in (("upgrade", "Say what changes."), ("downgrade", "Take back what upgrade does.")):
        if name not in functions:
            yield Finding(file.path.name, name, f"it has no {name}", remedy)
    downgrade = functions.get("downgrade")
    if downgrade is not None and _is_empty(downgrade) and not (ast.get_docstring(downgrade) or "").strip():
        yield Finding(
            file.path.name, "downgrade", "its downgrade is empty",
            "Take back what upgrade does, or say in a docstring of downgrade() why that cannot be.",
        )  # fmt: skip


def is_one_way(file: RevisionFile) -> bool:
    """Whether its downgrade does nothing, on purpose: it is for the docstring to say why."""
    return any(
        isinstance(node, ast.FunctionDef) and node.name == "downgrade" and _is_empty(node) for node in file.tree.body
    )


def _is_empty(function: ast.FunctionDef) -> bool:
    return all(_does_nothing(statement) for statement in function.body)


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
