"""A revision names everything that it drops."""

import ast
import re
from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings

_CASCADE = re.compile(r"\b(DROP|TRUNCATE)\b[^;]*\bCASCADE\b", re.IGNORECASE)


@partial(FileRule, remedy="Drop what depends on it first, by name.", may_be_accepted=True)
def check(file: RevisionSource, _: Project) -> Findings:
    """Find a DROP or TRUNCATE with CASCADE, which also drops what the revision does not name."""
    for statement in file.tree.body[1:]:  # the first one is the docstring
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CASCADE.search(node.value):
                yield Finding(f"line {node.lineno} has CASCADE")
