"""A revision has a downgrade that does something, or a reason why it cannot."""

import ast
from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings


@partial(FileRule, remedy="Revert what upgrade does, or explain in a docstring of downgrade() why that is impossible.")
def check(file: RevisionSource, _: Project) -> Findings:
    """Find a revision without `downgrade()`, or with an empty one whose docstring does not say why."""
    downgrade = file.function("downgrade")
    if downgrade is None:
        yield Finding("it has no downgrade", "Revert what upgrade does.")
    elif file.is_one_way and not (ast.get_docstring(downgrade) or "").strip():
        yield Finding("its downgrade is empty")
