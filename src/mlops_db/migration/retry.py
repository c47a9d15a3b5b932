"""Trying again when a revision got no lock, instead of waiting longer: a waiting ALTER keeps everybody behind it."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from mlops_db.errors import RefusedError
from mlops_db.migration.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlops_db.migration.blockers import Blocker
    from mlops_db.migration.progress import Progress

LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK_DETECTED = "40P01"
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0


def with_retries(  # noqa: PLR0913  (all but the first by name)
    attempt: Callable[[], None],
    *,
    position: Callable[[], int],
    blockers: Callable[[], Sequence[Blocker]],
    retry_for_ms: int,
    show_queries: bool,
    progress: Progress,
) -> None:
    """Call `attempt` until it gets its locks, or until one revision has been tried for long enough.

    Args:
        attempt: runs what is left to run; it resumes where the last one stopped, since each revision commits.
        position: how many revisions are done; a revision that got through gives the next one its whole time.
        blockers: who was seen to block, and forgets it.
        retry_for_ms: how long one revision is tried, in milliseconds.
        show_queries: print the blockers' queries.
        progress: told of each failed try.

    Raises:
        RefusedError: the time is up; the message names who blocked.
    """
    done, begun, pause, tries = position(), time.monotonic(), FIRST_PAUSE_S, 0
    while True:
        try:
            attempt()
        except DBAPIError as error:  # noqa: PERF203  (trying again is the point)
            if getattr(error.orig, "pgcode", None) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                raise
            if position() != done:
                done, begun, pause, tries = position(), time.monotonic(), FIRST_PAUSE_S, 0
            tries += 1
            seen = "; ".join(blocker.told(with_query=show_queries) for blocker in blockers()) or "nobody seen"
            left = retry_for_ms / 1000 - (time.monotonic() - begun)
            if left <= 0:
                raise RefusedError(
                    f"no lock after {tries} {'try' if tries == 1 else 'tries'}, blocked by {seen}; "
                    "the step was rolled back, those before it are done",
                    hint="End that session or let it finish, then run the same command; it goes on where it stopped. "
                    "MLOPS_RETRY_FOR=10min, for alembic also -x retry-for=10min, tries longer.",
                ) from error
            pause_s = min(left, pause * random.uniform(0.5, 1))  # noqa: S311  (jitter, not a secret)
            progress.note(f"no lock, blocked by {seen}; next try in {duration(pause_s)}")
            time.sleep(pause_s)
            pause = min(pause * 2, LAST_PAUSE_S)
        else:
            return
