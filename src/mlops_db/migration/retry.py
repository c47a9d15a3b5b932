"""Retries a revision, or a batch, that got no lock.

A longer wait would be worse: a waiting ALTER TABLE blocks all later queries.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import RefusedError
from mlops_db.migration.progress import duration
from mlops_db.server.failures import find_server_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlops_db.migration.progress import Progress

RETRY_LONGER = "To retry for longer: MLOPS_RETRY_FOR=10min, for alembic also -x retry-for=10min."
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0


def with_retries(  # noqa: PLR0913  (what to retry, how long, and how to show it)
    attempt: Callable[[], None],
    *,
    position: Callable[[], int],
    blockers: Callable[[], str],
    retry_for_ms: int,
    progress: Progress,
    unit: str | None = "step",
) -> None:
    """Call `attempt` until it gets its locks, or until the time for one revision or batch is over.

    Args:
        attempt: runs the revisions, or the batches, that are left; it resumes after the last one that was committed.
        position: how many of them are done; each gets the whole time.
        blockers: describes the sessions that blocked the last attempt.
        retry_for_ms: how long one of them is tried, in milliseconds.
        progress: shows each failed attempt.
        unit: what they are; None if there is one attempt for everything.

    Raises:
        RefusedError: the time is over; the message names the blockers.
    """
    done, begun, pause, tries = position(), time.monotonic(), FIRST_PAUSE_S, 0
    while True:
        try:
            attempt()
        except (DBAPIError, psycopg2.Error) as error:  # noqa: PERF203  (the loop exists for the retry)
            if not isinstance(find_server_error(error), (LockNotAvailable, DeadlockDetected)):
                raise
            if position() != done:
                done, begun, pause, tries = position(), time.monotonic(), FIRST_PAUSE_S, 0
            tries += 1
            blocked_by = blockers()
            left = retry_for_ms / 1000 - (time.monotonic() - begun)
            if left <= 0:
                outcome = f"the {unit} was rolled back, those before it are done" if unit else "nothing was changed"
                again = "the same command: it resumes where it stopped" if unit else "the same command again"
                raise RefusedError(
                    f"no lock after {tries} {'try' if tries == 1 else 'tries'}, blocked by {blocked_by}; {outcome}",
                    hint=f"End that session or let it finish, then run {again}. {RETRY_LONGER}",
                ) from error
            pause_s = min(left, pause * random.uniform(0.5, 1))  # noqa: S311  (jitter, not a secret)
            progress.note(
                "no lock, blocked by %s; next try in %s",
                blocked_by,
                duration(pause_s),
                level=logging.WARNING,
                blocked_by=blocked_by,
            )
            time.sleep(pause_s)
            pause = min(pause * 2, LAST_PAUSE_S)
        else:
            return
