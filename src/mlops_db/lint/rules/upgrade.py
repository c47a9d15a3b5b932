"""A revision has an upgrade."""

from collections.abc import Iterator
from functools import partial

from mlops_db.lint.revision_file import Project, RevisionFile
from mlops_db.lint.rule import FileRule, Finding


@partial(FileRule, name="upgrade", text="a revision without `upgrade()`", remedy="Say what changes.", stops_runs=True)
def check(file: RevisionFile, _: Project) -> Iterator[Finding]:
    """Find a file without upgrade()."""
    if file.function("upgrade") is None:
        yield Finding("it has no upgrade")
