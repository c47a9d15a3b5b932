"""The revisions end at one head."""

from functools import partial

from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rule import FileRule, Finding, Findings


@partial(
    FileRule,
    remedy="Let it follow the other one (down_revision and the number), or merge them with `alembic merge`.",
    stops_runs=True,
)
def check(file: RevisionSource, project: Project) -> Findings:
    """Find several heads."""
    parents = {parent for each in project.parsed for parent in each.down_revision}
    heads = list({each.revision: each for each in project.parsed if each.revision not in parents}.values())
    if len(heads) > 1 and file is heads[-1]:
        names = ", ".join(str(each.revision) for each in heads)
        yield Finding(f"there are {len(heads)} heads: {names}")
