"""Reads the files of revisions without running them."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Characters that Alembic does not allow in an id (alembic.script.revision) or writes into SQL as they are, and words
# with another meaning.
_NOT_IN_AN_ID = frozenset("@:+-'\"\\")
_WORDS = ("head", "heads", "base", "current")
# alembic_version.version_num is a varchar(32).
_LONGEST_ID = 32
VALID_ID = f"a text of 1 to {_LONGEST_ID} characters without {' '.join(sorted(_NOT_IN_AN_ID))}"
# What the docstring of a revision declares about code that knows only earlier ones.
_RUNNING_CODE = re.compile(
    r"^Running code:\s+(?:(?P<unaffected>unaffected)\.|breaks(?:\s+code\s+before\s+(?P<since>[^\s:]+))?:\s*\S)",
    re.MULTILINE,
)
_SQL_NAME = re.compile(r"[a-zA-Z0-9][\w.-]*\.sql")  # "_rules.sql" is the end of a name that the revision puts together


@dataclass(frozen=True)
class Fault:
    """An error in revision files, so that no command can rely on them.

    Attributes:
        files: the names of the files.
        message: what is wrong, in one line that names them.
        remedy: what to do about it, in one line.
    """

    files: tuple[str, ...]
    message: str
    remedy: str


class UnusableFileError(Exception):
    """A file without a usable revision; `fault` has the reason."""

    def __init__(self, fault: Fault) -> None:
        """Take what is wrong."""
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True)
class RevisionFile:
    """A revision as its file declares it.

    Attributes:
        path: the file.
        id: what `alembic_version` holds at this revision, such as `0003`.
        parents: the ids of `down_revision`: none at base, several where branches are merged.
        depends_on: ids or labels of other revisions that must have run before.
        labels: names of the branch that begins here.
        works_from: the revision that code must know to work after this one; None if all code works.
    """

    path: Path
    id: str
    parents: tuple[str, ...]
    depends_on: tuple[str, ...]
    labels: tuple[str, ...]
    works_from: str | None

    @property
    def title(self) -> str:
        """The file's name without the id, such as `retraining_decisions`."""
        return self.path.stem.removeprefix(self.id).lstrip("_")

    @property
    def is_named_after_its_id(self) -> bool:
        """Whether the file has the name that `alembic revision` gives it here."""
        return self.path.stem == self.id or self.path.stem.startswith(f"{self.id}_")


def revision_paths(folder: Path) -> list[Path]:
    """The files that Alembic takes for revisions in a folder; none if there is no such folder."""
    if not folder.is_dir():
        return []
    names = (".#", "__init__")  # an editor's lock, and the file of a package
    return [path for path in sorted(folder.glob("*.py")) if not path.name.startswith(names) and not path.is_dir()]


def sql_folder(revision: Path) -> Path:
    """The folder with the SQL files of a revision, which hold its long statements."""
    return revision.with_name("sql")


def sql_names(tree: ast.Module) -> list[str]:
    """The SQL files that a revision executes: texts such as "0022_v_model_timeline.sql" where it says execute_file."""
    nodes = list(ast.walk(tree))
    if not any(isinstance(node, ast.Attribute) and node.attr == "execute_file" for node in nodes):
        return []
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return list(dict.fromkeys(text for text in texts if _SQL_NAME.fullmatch(text)))


def missing_sql_file(revision: Path, name: str) -> Fault:
    """The fault of a revision that names an SQL file that does not exist."""
    return Fault(
        (revision.name,), f"{revision.name} executes {sql_folder(revision).name}/{name}, which is not there",
        "Restore the file (in a checkout: git checkout -- migrations), or correct its name in the revision.",
    )  # fmt: skip


def read_revision_file(path: Path) -> RevisionFile:
    """Read the values that a file assigns to `revision`, `down_revision`, `branch_labels` and `depends_on`.

    Raises:
        UnusableFileError: it is not Python, cannot be read, assigns something else than literals, or executes an SQL
            file that is not there.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}", "Restore it.") from None
    file, names = _parse(path, source)
    for name in names:
        if not (sql_folder(path) / name).is_file():
            raise UnusableFileError(missing_sql_file(path, name))
    return file


# A check of the revisions reads all files before each of its commands.
@lru_cache(maxsize=1024)
def _parse(path: Path, source: bytes) -> tuple[RevisionFile, list[str]]:
    """Parse a file; returns the revision, and the SQL files that it executes."""
    try:
        tree = ast.parse(source, str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise _unusable(path, f"is not Python{place}: {reason}", "Fix the error, or restore the file.") from None
    assigned = dict(_assignments(path, tree))
    missing = [name for name in ("revision", "down_revision") if name not in assigned]
    if missing:
        raise _unusable(
            path, f"assigns no {' and no '.join(missing)}, so it is no revision",
            "Assign both at its top, or move a file that is no revision to another folder.",
        )  # fmt: skip
    ids = _texts(path, "revision", assigned["revision"])
    if len(ids) != 1 or not isinstance(assigned["revision"], str) or not is_an_id(ids[0]):
        raise _unusable(
            path, f"has the revision {assigned['revision']!r}, which is not a valid id",
            f"Take {VALID_ID}: the next number.",
        )  # fmt: skip
    parents, depends_on, labels = (
        _texts(path, name, assigned.get(name)) for name in ("down_revision", "depends_on", "branch_labels")
    )
    works_from = read_running_code(ast.get_docstring(tree) or "", ids[0])
    names = sql_names(tree) if b"execute_file" in source else []  # walking a tree takes time
    return RevisionFile(path, ids[0], parents, depends_on, labels, works_from), names


def read_running_code(docstring: str, revision: str) -> str | None:
    """The revision from which on code works after this one, as its docstring declares under `Running code`.

    None for `unaffected.`. It is the revision itself for `breaks: ...`, and for a docstring that declares nothing;
    another one for `breaks code before 0021: ...`.
    """
    declared = _RUNNING_CODE.search(docstring)
    if declared is None:
        return revision
    return None if declared["unaffected"] else declared["since"] or revision


def _unusable(path: Path, what: str, remedy: str) -> UnusableFileError:
    return UnusableFileError(Fault((path.name,), f"{path.name} {what}", remedy))


def is_an_id(text: str) -> bool:
    """Whether a revision can have this id."""
    return 0 < len(text) <= _LONGEST_ID and not _NOT_IN_AN_ID & {*text} and text not in _WORDS and text.isprintable()


def _assignments(path: Path, tree: ast.Module) -> Iterator[tuple[str, object]]:
    names = {"revision", "down_revision", "branch_labels", "depends_on"}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, ast.AnnAssign) and node.value is None:
            continue
        for name in names & _bound(node):
            yield name, _literal(path, name, node)


def _literal(path: Path, name: str, node: ast.stmt) -> object:
    expression = _assigned(node, name)
    with suppress(ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        if expression is not None:
            literal: object = ast.literal_eval(expression)
            return literal
    raise _unusable(
        path, f"does not assign its {name} as a literal",
        f'Write it out, such as {name} = "0004", because the file is not run.',
    )  # fmt: skip


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement outside of functions assigns in any way."""
    stored = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
    return stored | {each.asname or each.name for each in ast.walk(node) if isinstance(each, ast.alias)}


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    """What `name = value`, `name: type = value` or `name, other = value, another` assigns; None for anything else."""
    if isinstance(node, ast.AnnAssign):
        return node.value
    if not isinstance(node, ast.Assign):
        return None
    pairs: list[tuple[ast.expr, ast.expr]] = [(target, node.value) for target in node.targets]
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs.extend(zip(target.elts, node.value.elts, strict=False))
    return next((value for target, value in pairs if isinstance(target, ast.Name) and target.id == name), None)


def _texts(path: Path, name: str, value: object) -> tuple[str, ...]:
    """The texts of None, a text or several."""
    several = value if isinstance(value, (tuple, list)) else () if value is None else (value,)
    texts = tuple(text for text in several if isinstance(text, str))
    if len(texts) != len(several):
        raise _unusable(path, f"has the {name} {value!r}, which is not text", f'Write {name} = "0004", for example.')
    return texts
