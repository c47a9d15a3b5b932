"""A revision can be imported."""

from functools import partial

from alembic.util import load_python_file

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings, first_line


@partial(FileRule, remedy="Fix the error.", stops_runs=True)
def check(file: RevisionSource, _: Project) -> Findings:
    """Find a file that cannot be imported."""
    try:
        load_python_file(file.path.parent, file.name)
    except Exception as error:  # noqa: BLE001  (importing a revision runs any code that is in it)
        yield Finding(f"it cannot be imported: {first_line(error)}")
