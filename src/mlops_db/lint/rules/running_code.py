"""A write that worked before an upgrade still works after it: jobs run the old code during the upgrade, and after it.

Names that are gone do not count here: squawk has rules for what renames and drops.
"""

from functools import partial

from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, Findings, RunRule, first_line

_NAMES_GONE = "42"  # the class of SQLSTATEs for what does not exist, or may not be used
_IDENTITY = "428C9"  # this one is about a value that a column does not take


@partial(
    RunRule,
    column="rows",
    remedy="Change the code that writes it one release earlier; if that is done, or no code writes it, declare it:"
    " `Accepted: running-code, because ...` in the docstring.",
    may_be_accepted=True,
)
def check(run: Run) -> Findings:
    """Find a write that worked before the upgrade and fails after it."""
    reported = set()
    for write, error in run.refused.items():
        broken = (error.pgcode, error.diag.column_name, error.diag.constraint_name)  # a partition is another table
        gone = (error.pgcode or "").startswith(_NAMES_GONE) and error.pgcode != _IDENTITY
        if broken not in reported and not gone:
            reported.add(broken)
            yield Finding(f"{write} worked before the upgrade, and fails after it: {first_line(error)}")
