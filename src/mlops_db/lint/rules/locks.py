"""A docstring declares the strongest lock that its revision takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.lint.revision_files import LOCK_MODES, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.lint.observation import Step

RULE = "locks"


def check(step: Step, declared: int) -> Iterator[Finding]:
    """Find locks, on what was there before, that are stronger than the declared one, a place in LOCK_MODES."""
    for oid, modes in ((oid, modes) for locks in step.transactions for oid, modes in locks.items()):
        strongest = max(map(LOCK_MODES.index, modes))
        if oid in step.before.relations and strongest > declared:
            name, said = step.before.relations[oid].name, LOCK_MODES[declared] if declared >= 0 else "none"
            yield Finding(
                step.file, RULE, f"{step.direction} takes {LOCK_MODES[strongest]} on {name}, declared is {said}",
                "Declare it under Locks with the time it is held, or avoid it.",
            )  # fmt: skip
