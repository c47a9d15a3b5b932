"""A revision imports only what stays the same: Alembic, SQLAlchemy and the standard library."""

import ast
import sys
from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings

_STEADY = {"alembic", "sqlalchemy", *sys.stdlib_module_names}


@partial(FileRule, remedy="Write into the revision what it needs, as literals.")
def check(file: RevisionSource, _: Project) -> Findings:
    """Find an import of something else than alembic, sqlalchemy and the standard library."""
    for node in ast.walk(file.tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        for module in modules:
            if module.partition(".")[0] not in _STEADY:
                yield Finding(f"it imports {module}, which can change after the revision has run")
