"""What an operation of a revision can know about the step that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlops_db.migration.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlops_db.migration.transaction import RevisionTransaction

STEP = "mlops_db_step"  # key of MigrationContext.opts: the RunningStep


def direction_name(*, is_upgrade: bool) -> str:
    """The direction as the tables of runs have it."""
    return "upgrade" if is_upgrade else "downgrade"


@dataclass(frozen=True)
class RunningStep:
    """An upgrade or a downgrade of one revision that runs, or is written as a script.

    Attributes:
        revision: its id.
        direction: `upgrade` or `downgrade`.
        transaction: the rules for its statements.
        progress: shows what happens.
        describe_blockers: describes the sessions that blocked the last statement.
    """

    revision: str
    direction: str
    transaction: RevisionTransaction
    progress: Progress = field(default_factory=lambda: Progress(None))
    describe_blockers: Callable[[], str] = lambda: "nobody seen"
