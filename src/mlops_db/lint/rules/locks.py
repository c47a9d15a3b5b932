"""A docstring declares the strongest lock that its revision takes."""

from functools import partial

from mlops_db.lint.lock_modes import LOCK_MODES, strongest_lock
from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, Findings, RunRule


@partial(RunRule, column="locks", remedy="Declare it under Locks with the time it is held, or avoid it.", baseline=True)
def check(run: Run) -> Findings:
    """Find a lock that is stronger than the docstring declares, by `pg_locks` before each commit."""
    declared = strongest_lock(run.file.description.sections.get("Locks", ""))
    for step in run.steps:
        for oid, modes in (item for locks in step.transactions for item in locks.items()):
            strongest = max(map(LOCK_MODES.index, modes))
            # Nobody waits for a lock on what the revision itself has created.
            if oid in step.before.relations and strongest > declared:
                yield Finding(
                    f"{step.direction} takes {LOCK_MODES[strongest]} on {step.before.relations[oid].name},"
                    f" declared: {LOCK_MODES[declared] if declared >= 0 else 'none'}",
                )
