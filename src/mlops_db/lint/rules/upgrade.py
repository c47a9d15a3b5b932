"""A revision has an upgrade."""

from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings


@partial(FileRule, remedy="Say what changes.", stops_runs=True)
def check(file: RevisionSource, _: Project) -> Findings:
    """Find a revision without `upgrade()`."""
    if file.function("upgrade") is None:
        yield Finding("it has no upgrade")
