"""Each revision has an id of its own."""

from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings


@partial(FileRule, remedy="Renumber one of them.", stops_runs=True)
def check(file: RevisionSource, project: Project) -> Findings:
    """Find an id or a label that several files have."""
    for fault in project.graph.shared_ids:
        if fault.files[-1] == file.name:
            yield Finding(fault.message, fault.remedy)
