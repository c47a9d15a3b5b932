"""Fill an empty database with the made-up events of a year.

It calls what jobs call. Jobs write the current time, so each row is then moved to the time of its event.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlops_db.demo.measurements import bounds, measurements
from mlops_db.demo.story import MODELS, TRAINING_TIME, Candidate, Rollback, Story
from mlops_db.errors import RefusedError
from mlops_db.storage.metrics.bounds import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from mlops_db.storage.db_manager import DatabaseManager

# Longer than the four hours between two values, so that the demo is not stale after a few hours.
EXPECTED_EVERY = timedelta(days=2)
# Jobs promote and reject; people roll back.
JOB, PERSON = "retraining", "ada@example.com"
# Without row_security, rows that a policy hides are an error. With it, the tables would look empty.
_HAS_ROWS = """
SET LOCAL row_security = off;
SELECT EXISTS (SELECT 1 FROM public.model_versions) OR EXISTS (SELECT 1 FROM public.monitoring_metrics)
    OR EXISTS (SELECT 1 FROM public.retraining_decisions) OR EXISTS (SELECT 1 FROM mlops_internal.metric_series), now()
"""


@dataclass(frozen=True)
class Filled:
    """The numbers of what was written.

    Attributes:
        models: the number of models.
        versions: the number of their versions.
        decisions: the number of decisions.
        metrics: the number of rows of metrics.
    """

    models: int
    versions: int
    decisions: int
    metrics: int


def fill(db: DatabaseManager, *, days: int, seed: int, progress: Callable[[int, int], None]) -> Filled:
    """Fill an empty database with the days before now.

    Args:
        db: the database, at head.
        days: the number of days.
        seed: the seed of the random numbers.
        progress: called with the number of days that are written, first with 0, and with all days.

    Raises:
        RefusedError: the database is not empty, or MLOPS_ENV is production.
    """
    if db.settings.environment == "production":
        raise RefusedError(
            "MLOPS_ENV is production: the demo writes no made-up data there", hint="Name a database for tests."
        )
    with db.safe_cursor() as cursor:
        cursor.execute(_HAS_ROWS)
        has_rows, began = cursor.fetchall()[0]
    if has_rows:
        raise RefusedError(
            f"{db.settings.target} is not empty; nothing was changed",
            hint="Use a separate database: `export MLOPS_DB_NAME=mlops_demo`, `mlops-db init`, `mlops-db demo`.",
        )
    progress(0, days)
    story = Story(now=began, days=days, seed=seed)
    for event in story.events:
        _write(db, event, since=began)
        _move(db, event.at, since=began)
    written = db.monitoring.log_many(_rows(story, progress)).written
    _expect_values(db)
    return Filled(
        models=len(MODELS),
        versions=len(db.models.list(limit=None)),
        decisions=sum(summary.count for summary in db.decisions.summary().values()),
        metrics=written,
    )


def _write(db: DatabaseManager, event: Candidate | Rollback, *, since: datetime) -> None:
    if isinstance(event, Rollback):
        db.models.rollback(event.model_name, of=event.run_id, reasoning=event.reasoning, decided_by=PERSON)
        return
    db.models.register(
        event.run_id,
        str(event.version),
        model_name=event.model_name,
        f1_score=event.f1_score,
        brier_score=event.brier_score,
    )
    _move(db, event.at - TRAINING_TIME, since=since)
    decision: dict[str, Any] = {"gates": event.gates, "reasoning": event.reasoning, "decided_by": JOB}
    if event.action == "promote":
        db.models.promote(event.run_id, **decision)
    elif event.action == "reject":
        db.models.reject(event.run_id, decided_at=event.at, **decision)
    else:
        db.decisions.record(
            event.action, candidate=event.run_id, model_name=event.model_name, decided_at=event.at, **decision
        )


def _move(db: DatabaseManager, moment: datetime, *, since: datetime) -> None:
    """Change the times of what was written at `since` or later to `moment`."""
    for table, column in (
        ("model_versions", "created_at"),
        ("model_versions", "promoted_at"),
        ("retraining_decisions", "decision_timestamp"),
        ("retraining_decisions", "created_at"),
    ):
        with db.safe_cursor() as cursor:
            cursor.execute(f"UPDATE public.{table} SET {column} = %s WHERE {column} >= %s", (moment, since))


def _rows(story: Story, progress: Callable[[int, int], None]) -> Iterator[dict[str, Any]]:
    day = 0
    for row in measurements(story):
        if (row["timestamp"] - story.begin).days != day:
            day += 1
            progress(day, story.days)
        yield row


def _expect_values(db: DatabaseManager) -> None:
    normal = {(each.model_name, each.metric_type, each.metric_name): each for model in MODELS for each in bounds(model)}
    for series in db.monitoring.series():
        name = series.model_name, series.metric_type, series.metric_name
        of_series = normal.get(name, Bounds(series.metric_type, series.metric_name))
        db.monitoring.expect(
            series.metric_type,
            series.metric_name,
            interval=EXPECTED_EVERY,
            lower=of_series.lower,
            upper=of_series.upper,
            model_name=series.model_name,
        )
