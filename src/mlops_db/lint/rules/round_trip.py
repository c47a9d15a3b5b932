"""A revision runs on tables with rows, downgrade reverts it, and a second upgrade does the same as the first."""

from functools import partial

from mlops_db.drift.compare import differences
from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, Findings, RunRule, first_line


@partial(RunRule, column="round trip", remedy="Fix downgrade().", baseline=True)
def check(run: Run) -> Findings:
    """Find a failure on tables with rows; what downgrade does not restore; a second upgrade with another result."""
    if run.broken_file is not None:
        yield Finding(
            f"existing rows can violate its {run.broken_constraint}, so {run.file.name} does not run:"
            f" {first_line(run.error)}",
            "Find such rows first, and raise an error that lists them.",
            run.broken_file,
        )
        return
    if run.error is not None:
        yield Finding(f"it does not run on tables with rows: {first_line(run.error)}", "Fix the error.")
        return
    upgrade, downgrade, again = run.steps
    # Within a copy of a table, the way back has a copy of its own: only its end restores what was there.
    if not run.file.is_one_way and not downgrade.after.copies:
        for difference in differences(upgrade.before.catalogue, downgrade.after.catalogue):
            yield Finding(f"downgrade leaves a difference, {difference}")
    for difference in differences(*run.whole_way) if run.whole_way else ():
        yield Finding(f"downgrade to before the copy leaves a difference, {difference}")
    for difference in differences(upgrade.after.catalogue, again.after.catalogue):
        yield Finding(f"a second upgrade makes a difference, {difference}")
