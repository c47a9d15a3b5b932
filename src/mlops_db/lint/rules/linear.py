"""Each revision follows one that has a lower number."""

from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings


@partial(FileRule, remedy="Set down_revision to the revision with the number before.", stops_runs=True)
def check(file: RevisionSource, project: Project) -> Findings:
    """Find a revision that follows none of those before it."""
    # Two files that follow the same one are no finding here: they make two heads, or are merged.
    before = [each.revision for each in project.parsed[: project.parsed.index(file)]]
    ours = [each.id for each in project.graph.revisions] if project.is_beside else []
    unknown = [parent for parent in file.down_revision if parent not in (*ours, *before)]
    if unknown or (before and not file.down_revision):
        follows = " and ".join(unknown) or "nothing"
        yield Finding(f"it follows {follows}, not {before[-1] if before else 'nothing'}")
