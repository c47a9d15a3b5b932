"""An upgrade breaks no code of earlier revisions, unless its docstring says what it breaks.

Jobs run the old code during the upgrade, and after it. `Running code: unaffected.` is therefore compared with what the
upgrade did to the names, types and rules that code relies on, and with the writes that worked before it.
"""

from functools import partial

from mlops_db.lint.breaking_changes import breaking_changes
from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, Findings, RunRule, first_line

_NAMES_GONE = "42"  # the class of SQLSTATEs for what does not exist, or may not be used
_IDENTITY = "428C9"  # this one is about a value that a column does not take


@partial(
    RunRule,
    column="rows",
    remedy="Keep it as it was until no code needs it so; or declare it in the docstring: `Running code: breaks: ...`,"
    " or `breaks code before <revision>: ...`, which names the first revision whose code works.",
    needs=lambda run: run.error is None,
)
def check(run: Run) -> Findings:
    """Find `Running code: unaffected.` although something that code uses is gone, narrower, or refuses its writes."""
    if run.file.works_from is not None:
        return
    upgrade = run.steps[0]
    changes = list(breaking_changes(upgrade.before.catalogue, upgrade.after.catalogue))
    for change in changes:
        yield Finding(change)
    reported = set()
    for write, error in run.refused.items():
        broken = (error.pgcode, error.diag.column_name, error.diag.constraint_name)  # a partition is another table
        gone = (error.pgcode or "").startswith(_NAMES_GONE) and error.pgcode != _IDENTITY
        told = any(name and name in change for name in broken[1:] for change in changes)
        if broken not in reported and not gone and not told:
            reported.add(broken)
            yield Finding(f"{write} worked before the upgrade, and fails after it: {first_line(error)}")
