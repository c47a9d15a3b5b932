"""What an operation of a revision can know about the step that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlops_db.migration.progress import Progress
    from mlops_db.migration.transaction import RevisionTransaction

STEP = "mlops_db_step"  # key of MigrationContext.opts


@dataclass(frozen=True)
class RunningStep:
    """An upgrade or a downgrade of one revision that runs.

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
    progress: Progress
    describe_blockers: Callable[[], str]
