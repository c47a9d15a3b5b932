"""A revision runs on tables with rows, downgrade takes it back, and a second upgrade does the same as the first."""

from collections.abc import Iterator
from functools import partial

from mlops_db.drift.compare import differences
from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, RunRule, first_line


@partial(
    RunRule,
    name="round-trip",
    column="round trip",
    text="a failure on tables with rows; what downgrade does not restore; a second upgrade with another result",
    remedy="Fix downgrade().",
    baseline=True,
)
def check(run: Run) -> Iterator[Finding]:
    """Find why a revision does not run; otherwise what downgrade leaves, and what a second upgrade does otherwise."""
    if run.broken_file is not None:
        yield Finding(
            f"rows that may be there break its {run.broken_constraint}, so {run.file.name} does not run:"
            f" {first_line(run.error)}",
            "Look for such rows first, and stop with what they are.",
            run.broken_file,
        )
        return
    if run.error is not None:
        yield Finding(f"it does not run with rows there: {first_line(run.error)}", "Fix the error.")
        return
    upgrade, downgrade, again = run.steps
    if not run.file.is_one_way:
        for difference in differences(upgrade.before.catalogue, downgrade.after.catalogue):
            yield Finding(f"downgrade does not bring back a difference, {difference}")
    for difference in differences(upgrade.after.catalogue, again.after.catalogue):
        yield Finding(f"a second upgrade makes a difference, {difference}")
