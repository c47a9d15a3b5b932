"""A revision can be imported."""

from collections.abc import Iterator
from functools import partial

from alembic.util import load_python_file

from mlops_db.lint.revision_file import Project, RevisionFile
from mlops_db.lint.rule import FileRule, Finding, first_line


@partial(FileRule, name="loads", text="a file that cannot be imported", remedy="Fix the error.", stops_runs=True)
def check(file: RevisionFile, _: Project) -> Iterator[Finding]:
    """Import the file, as Alembic does."""
    try:
        load_python_file(file.path.parent, file.name)
    except Exception as error:  # noqa: BLE001  (importing a revision runs any code that is in it)
        yield Finding(f"it cannot be imported: {first_line(error)}")
