"""Write the story down, by what jobs call; and because jobs live in the present, move what they wrote to its day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mlops_db.demo.measurements import measurements
from mlops_db.demo.story import MODELS, TRAINING_TIME, Candidate, Rollback, Story
from mlops_db.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from mlops_db.storage.db_manager import DatabaseManager

# Longer than the four hours between two values, so that the demo does not go stale on the day it is made.
EXPECTED_EVERY = timedelta(days=2)
# Who decided: a job does, and what goes wrong is for people.
JOB, PERSON = "retraining", "ada@example.com"
# Rows that a policy hides are an error, not none.
_LOOK = """
SET LOCAL row_security = off;
SELECT EXISTS (SELECT FROM public.model_versions) OR EXISTS (SELECT FROM public.monitoring_metrics)
    OR EXISTS (SELECT FROM public.retraining_decisions) OR EXISTS (SELECT FROM mlops_internal.metric_series), now()
"""


@dataclass(frozen=True)
class Filled:
    """How much there is to see.

    Attributes:
        models: how many models.
        versions: how many versions of them.
        decisions: how many decisions.
        metrics: how many rows of metrics.
    """

    models: int
    versions: int
    decisions: int
    metrics: int


def fill(db: DatabaseManager, *, days: int, seed: int, progress: Callable[[int, int], None]) -> Filled:
    """Fill an empty database with the days before now.

    Args:
        db: the database, at head.
        days: how many.
        seed: the same one gives the same numbers.
        progress: is told how many of the days are sent, first that it is none.

    Raises:
        RefusedError: it is not empty, or MLOPS_ENV is production.
    """
    if db.settings.environment == "production":
        raise RefusedError(
            "MLOPS_ENV is production: made-up data has no place there", hint="Name a database to play with."
        )
    with db.safe_cursor() as cursor:
        cursor.execute(_LOOK)
        has_rows, began = cursor.fetchall()[0]
    if has_rows:
        raise RefusedError(
            f"{db.settings.target} is not empty; nothing was changed",
            hint="Take a database of its own: `export MLOPS_DB_NAME=mlops_demo`, `mlops-db init`, `mlops-db demo`.",
        )
    progress(0, days)
    story = Story(now=began, days=days, seed=seed)
    for event in story.events:
        _write(db, event, since=began)
        _move(db, event.at, since=began)
    written = db.monitoring.log_many(_told(story, progress)).written
    _expect(db)
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
    if event.action == "promote":
        db.models.promote(event.run_id, gates=event.gates, reasoning=event.reasoning, decided_by=JOB)
        return
    if event.action == "reject":
        db.models.reject(
            event.run_id, gates=event.gates, reasoning=event.reasoning, decided_at=event.at, decided_by=JOB
        )
        return
    db.decisions.record(
        event.action,
        candidate=event.run_id,
        gates=event.gates,
        reasoning=event.reasoning,
        model_name=event.model_name,
        decided_at=event.at,
        decided_by=JOB,
    )


def _move(db: DatabaseManager, moment: datetime, *, since: datetime) -> None:
    """Let what was written at `since` or later have happened at `moment`."""
    for table, column in (
        ("model_versions", "created_at"),
        ("model_versions", "promoted_at"),
        ("retraining_decisions", "decision_timestamp"),
        ("retraining_decisions", "created_at"),
    ):
        with db.safe_cursor() as cursor:
            cursor.execute(f"UPDATE public.{table} SET {column} = %s WHERE {column} >= %s", (moment, since))


def _told(story: Story, progress: Callable[[int, int], None]) -> Iterator[dict[str, Any]]:
    day = 0
    for row in measurements(story):
        if (row["timestamp"] - story.begin).days != day:
            day += 1
            progress(day, story.days)
        yield row


def _expect(db: DatabaseManager) -> None:
    bounds: dict[tuple[str, str], dict[str, float]] = {
        ("performance", "f1_score"): {"lower": 0.6},
        ("performance", "brier_score"): {"upper": 0.25},
        ("performance", "ece"): {"upper": 0.08},
        ("drift", "share_of_drifted_columns"): {"upper": 0.5},
        ("coverage", "coverage_rate"): {"lower": 0.3},
    }
    for series in db.monitoring.series():
        db.monitoring.expect(
            series.metric_type,
            series.metric_name,
            interval=EXPECTED_EVERY,
            model_name=series.model_name,
            **bounds.get((series.metric_type, series.metric_name), {}),
        )
