"""A revision is Python, in UTF-8."""

from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings


@partial(FileRule, remedy="Fix the error.", stops_runs=True)
def check(file: RevisionSource, _: Project) -> Findings:
    """Find a file that is not Python in UTF-8."""
    if isinstance(file.error, SyntaxError):
        yield Finding(f"line {file.error.lineno}: {file.error.msg}")
    elif file.error is not None:
        yield Finding(f"it is not Python in UTF-8: {file.error}", "Fix its syntax, and save it in UTF-8.")
