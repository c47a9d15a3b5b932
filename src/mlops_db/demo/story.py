"""What happened to three models: the same again for the same seed, moment and number of days.

churn: a promotion that had to be rolled back, and a feature whose drift score cannot be computed at the moment.
fraud: a slow drift that became an incident and ended with a retraining; its latest candidate waits for a decision.
lead_scoring: the coverage of its labels fell silent, so its latest candidate could not be evaluated; it drifts again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops_db.schema.limits import GATES, Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

ROLLED_BACK_AFTER = timedelta(days=3)
TRAINING_TIME = timedelta(hours=2)
COOLDOWN = timedelta(days=7)

NO_COVERAGE = "coverage_validation"
_ACTIONS: Mapping[str, Action] = MappingProxyType(
    {"promote": "promote", "retrained": "promote", "rolled back": "promote", "pending": "pending"}
)


@dataclass(frozen=True)
class Ramp:
    """Something that grows from 0 to `height` between two moments, given as parts of the whole time, and ends then."""

    start: float
    end: float
    height: float

    def at(self, part: float) -> float:
        """How far it has grown."""
        return self.height * (part - self.start) / (self.end - self.start) if self.start <= part < self.end else 0.0


@dataclass(frozen=True)
class Model:
    """A model, and what becomes of its candidates in the order of time.

    Attributes:
        name: its model_name.
        features: what it predicts from; the first ones drift most.
        predictions: how many it makes between two measurements.
        positive_rate: the share of positive predictions.
        f1_score: of its first version.
        outcomes: of each candidate: `promote`, `retrained` (promoted, which ends the first drift), `rolled back` (after
            it was promoted), `pending`, or the gate that it failed.
        drifts: when its inputs drifted.
        failing_feature: whose drift score cannot be computed now and then, and at the end.
        silent_coverage: whether nobody measures the coverage of its labels any more.
    """

    name: str
    features: tuple[str, ...]
    predictions: int
    positive_rate: float
    f1_score: float
    outcomes: tuple[str, ...]
    drifts: tuple[Ramp, ...] = ()
    failing_feature: str | None = None
    silent_coverage: bool = False


MODELS = (
    Model(
        "churn",
        ("days_since_login", "plan", "monthly_spend", "tickets", "tenure"),
        4_000,
        0.18,
        0.66,
        (
            "promote", "metric_improvement", "promote", "promotion_cooldown", "rolled back", "metric_improvement",
            "sufficient_samples", "promote", "no_segment_regression", "promote", "metric_improvement",
            "calibration_maintained",
        ),
        failing_feature="days_since_login",
    ),
    Model(
        "fraud",
        ("amount", "merchant_category", "device_age", "country", "hour_of_day"),
        22_000,
        0.012,
        0.71,
        (
            "promote", "metric_improvement", "metric_improvement", "promote", "metric_improvement",
            "calibration_maintained", "retrained", "metric_improvement", "promote", "promotion_cooldown",
            "metric_improvement", "pending",
        ),
        drifts=(Ramp(0.34, 0.54, 1.0),),
    ),
    Model(
        "lead_scoring",
        ("source", "company_size", "visits", "industry", "days_open"),
        900,
        0.31,
        0.62,
        (
            "promote", "promote", "minimum_coverage", "metric_improvement", "promote", "no_segment_regression",
            "metric_improvement", "promote", "metric_improvement", "metric_improvement", "promote", NO_COVERAGE,
        ),
        drifts=(Ramp(0.9, 1.1, 1.4),),
        silent_coverage=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A version that was trained, and what was decided about it.

    Attributes:
        at: when it was decided, in UTC.
        model_name: the model.
        run_id: the MLflow run.
        version: the version, counted from 1.
        f1_score: as evaluated before the decision.
        brier_score: likewise; None if it was not measured.
        action: promote, reject or pending.
        gates: their results in the order of the evaluation, which stops at the first failure; None if none ran.
        reasoning: why, in words.
        flawed: whether it does worse in production than it did before.
    """

    at: datetime
    model_name: str
    run_id: str
    version: int
    f1_score: float
    brier_score: float | None
    action: Action
    gates: Mapping[str, Any] | None
    reasoning: str
    flawed: bool = False


@dataclass(frozen=True)
class Rollback:
    """A promotion that was taken back.

    Attributes:
        at: when, in UTC.
        model_name: the model.
        run_id: the MLflow run of the version that went.
        reasoning: why, in words.
    """

    at: datetime
    model_name: str
    run_id: str
    reasoning: str


class Story:
    """What happened in the days before `now`."""

    def __init__(self, *, now: datetime, days: int, seed: int) -> None:
        """Make it up.

        Args:
            now: its end, aware; seconds and minutes do not count.
            days: how long it took.
            seed: another one gives other numbers.
        """
        self.now = now.replace(minute=0, second=0, microsecond=0)
        self.days = days
        self.begin = self.now - timedelta(days=days)
        self.silent_since = self.now - max(timedelta(days=3), timedelta(days=days) * 0.06)
        self.seed = seed
        self.events: list[Candidate | Rollback] = sorted(
            (event for model in MODELS for event in self._lifecycle(model)), key=lambda event: event.at
        )

    def part(self, at: datetime) -> float:
        """How much of the whole time has passed: 0 to 1."""
        return (at - self.begin) / (self.now - self.begin)

    def in_production(self, model_name: str) -> list[tuple[datetime, Candidate]]:
        """Since when which version was in production, oldest first."""
        periods: list[tuple[datetime, Candidate]] = []
        for event in self.events:
            if event.model_name != model_name:
                continue
            if isinstance(event, Rollback):
                periods.append((event.at, periods[-2][1]))
            elif event.action == "promote":
                periods.append((event.at, event))
        return periods

    def _lifecycle(self, model: Model) -> Iterator[Candidate | Rollback]:
        random = Random(f"{self.seed} {model.name} versions")  # noqa: S311  (no secret)
        total = self.now - self.begin
        f1, brier = model.f1_score, 0.2
        promoted_at = self.begin
        for number, outcome in enumerate(model.outcomes):
            first = number == 0
            at = self.begin + total * (number + 0.5 + random.uniform(-0.15, 0.1)) / len(model.outcomes)
            if first:
                at = self.begin
            elif outcome == "retrained":
                at = self.begin + total * model.drifts[0].end
            elif outcome == "promotion_cooldown":
                at = promoted_at + min(timedelta(days=random.uniform(2, 5)), total / 50)
            better = random.uniform(-0.01, 0.018) if outcome == "metric_improvement" else random.uniform(0.024, 0.045)
            candidate_f1 = f1 if first else min(0.97, f1 * (1 + better))
            candidate_brier = (
                brier * random.uniform(0.94, 0.99) if outcome != "calibration_maintained" else brier + 0.016
            )
            known_brier = not (first and model.silent_coverage)
            candidate = Candidate(
                at=at,
                model_name=model.name,
                run_id=f"{random.getrandbits(128):032x}",
                version=number + 1,
                f1_score=round(candidate_f1, 4),
                brier_score=round(candidate_brier, 4) if known_brier else None,
                action=_ACTIONS.get(outcome, "reject"),
                gates=None
                if first
                else self._gates(
                    outcome,
                    random,
                    improvement=candidate_f1 / f1 - 1,
                    # The first version of a model may have no Brier score to compare with.
                    brier_change=math.inf if number == 1 and model.silent_coverage else candidate_brier - brier,
                    age=at - promoted_at,
                ),
                reasoning=_reasoning(outcome, first=first),
                flawed=outcome == "rolled back",
            )
            yield candidate
            if candidate.action == "promote" and not candidate.flawed:
                f1, brier, promoted_at = candidate_f1, candidate_brier, at
            if candidate.flawed:
                back_at = at + min(ROLLED_BACK_AFTER, total / 50)
                yield Rollback(
                    back_at,
                    model.name,
                    candidate.run_id,
                    "F1 in production fell by 0.08 within days: customers on the new plan are scored too low",
                )

    def _gates(
        self, outcome: str, random: Random, *, improvement: float, brier_change: float, age: timedelta
    ) -> dict[str, Any]:
        if outcome == NO_COVERAGE:
            return {NO_COVERAGE: {"passed": False, "error": "no coverage measured in the last 24 hours"}}
        samples = random.randint(60, 190) if outcome == "sufficient_samples" else random.randint(400, 6_000)
        coverage = random.uniform(12, 28) if outcome == "minimum_coverage" else random.uniform(45, 92)
        cooling = outcome == "promotion_cooldown"
        results: dict[str, dict[str, Any]] = {
            "sufficient_samples": {"num_samples": samples, "min_required": 200},
            "minimum_coverage": {"coverage_pct": round(coverage, 1), "min_required_pct": 30},
            "promotion_cooldown": {
                "message": f"{age / timedelta(days=1):.1f} days since the last promotion; {COOLDOWN.days} are required"
                if cooling
                else "no promotion in the cooldown period"
            },
            "metric_improvement": {"f1_improvement_pct": round(100 * improvement, 2), "threshold": 2.0},
            "calibration_maintained": {
                "brier_change": brier_change if math.isinf(brier_change) else round(brier_change, 4),
                "threshold": 0.01,
            },
            "no_segment_regression": {
                "issues": ["segment plan=enterprise: f1 0.61 -> 0.52"] if outcome == "no_segment_regression" else []
            },
        }  # fmt: skip
        gates: dict[str, Any] = {}
        for gate in GATES:
            gates[gate] = {"passed": gate != outcome, **results[gate]}
            if gate == outcome:
                break
        return gates


def _reasoning(outcome: str, *, first: bool) -> str:
    if first:
        return "First deployment: there is nothing to compare with"
    return {
        "promote": "All six gates passed",
        "retrained": "Retrained after the drift incident; all six gates passed",
        "rolled back": "All six gates passed",
        "pending": "All six gates passed; the risk team has not signed it off yet",
        "sufficient_samples": "Too few labelled predictions to judge by",
        "minimum_coverage": "Labels cover too small a part of the predictions",
        "promotion_cooldown": "Too soon after the last promotion",
        "metric_improvement": "Not enough better than the version in production",
        "calibration_maintained": "Better F1, but its probabilities are less reliable",
        "no_segment_regression": "Better on the whole, and worse for a segment that matters",
        NO_COVERAGE: "It could not be evaluated: the coverage of the labels is not known",
    }[outcome]
