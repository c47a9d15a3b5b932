"""What an operation of a revision can know about the step that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlops_db.errors import StatementFailedError
from mlops_db.migration.progress import Progress
from mlops_db.server.failures import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg2

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
        giving_up: how to take back what is half done, from the revision's docstring; empty if it does not say.
    """

    revision: str
    direction: str
    transaction: RevisionTransaction
    progress: Progress = field(default_factory=lambda: Progress(None))
    describe_blockers: Callable[[], str] = lambda: "nobody seen"
    giving_up: str = ""


def disk_full(step: RunningStep, error: psycopg2.Error) -> StatementFailedError:
    """The error for a step that found no space on the server's disk."""
    kept = "the batches that are done stay" if step.transaction.in_batches else "nothing of it was applied"
    return StatementFailedError(
        f"the server's disk is full, revision {step.revision} ({step.direction}): "
        f"{first_line(error.pgerror or str(error))}; {kept}",
        hint="Free space there, then run the same command: it resumes where it stopped."
        + (f" To give up: {step.giving_up}" if step.giving_up else ""),
    )
