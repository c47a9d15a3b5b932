"""`op.run_in_batches` is alone in its direction.

What comes before it is committed with the first batch, and would run again when the revision is resumed.
"""

import ast
from collections.abc import Iterator
from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings
from mlops_db.migration.statements import sets_only

BATCHES = "run_in_batches"


@partial(FileRule, remedy="Put it into a revision of its own; only SET may come before it.", stops_runs=True)
def check(file: RevisionSource, _: Project) -> Findings:
    """Find another operation beside `op.run_in_batches` in its function."""
    for name in ("upgrade", "downgrade"):
        operations = [one for one in _operations(file.function(name)) if not _sets(one[1], file)]
        if len(operations) > 1 and any(operation == BATCHES for operation, _ in operations):
            others = sorted({operation for operation, _ in operations} - {BATCHES}) or [BATCHES]
            yield Finding(f"{name} has op.{', op.'.join(others)} beside op.{BATCHES}")


def _operations(function: ast.FunctionDef | None) -> Iterator[tuple[str, ast.Call]]:
    """The calls of `op`, by name."""
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = node.func.value
            if isinstance(place, ast.Name) and place.id == "op":
                yield node.func.attr, node


def _sets(call: ast.Call, file: RevisionSource) -> bool:
    """Whether it executes only SET; its text may be a constant of the module."""
    if not call.args:
        return False
    value = call.args[0]
    if isinstance(value, ast.Name):
        constants = (node for node in file.tree.body if isinstance(node, ast.Assign))
        named = [node.value for node in constants if ast.dump(node.targets[0]).startswith(f"Name(id={value.id!r}")]
        value = named[-1] if named else value
    return isinstance(value, ast.Constant) and isinstance(value.value, str) and sets_only(value.value)
