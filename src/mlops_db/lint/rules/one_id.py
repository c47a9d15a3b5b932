"""Each revision has an id of its own."""

from collections.abc import Iterator
from functools import partial

from mlops_db.lint.revision_file import Project, RevisionFile
from mlops_db.lint.rule import FileRule, Finding


@partial(
    FileRule,
    name="one-id",
    text="an id or a label that several files have",
    remedy="Renumber one of them.",
    stops_runs=True,
)
def check(file: RevisionFile, project: Project) -> Iterator[Finding]:
    """Find the last one of several files that have the same id or label."""
    for fault in project.graph.shared_ids:
        if fault.files[-1] == file.name:
            yield Finding(fault.message, fault.remedy)
