"""Make up the events of three models. The same seed, moment and number of days give the same events.

churn: a promotion is rolled back, and the drift score of a feature cannot be computed at the end.
fraud: a slow drift becomes an incident and ends with a retraining; the latest candidate waits for a decision.
lead_scoring: the coverage of its labels is not measured any more, so the latest candidate could not be evaluated; it
drifts again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from mlops_db.schema.limits import Action

ROLLED_BACK_AFTER = timedelta(days=3)
TRAINING_TIME = timedelta(hours=2)
COOLDOWN = timedelta(days=7)

NO_COVERAGE = "coverage_validation"
# The action and the reasoning of each outcome. An outcome is the gate that failed, or one of the first five.
_OUTCOMES: Mapping[str, tuple[Action, str]] = {
    "first": ("promote", "First deployment: there is no version to compare with"),
    "promote": ("promote", "All six gates passed"),
    "retrained": ("promote", "Retrained after the drift incident; all six gates passed"),
    "rolled back": ("promote", "All six gates passed"),
    "pending": ("pending", "All six gates passed; the risk team has not signed it off yet"),
    "sufficient_samples": ("reject", "Too few labelled predictions to evaluate it"),
    "minimum_coverage": ("reject", "Too few predictions have labels"),
    "promotion_cooldown": ("reject", "Too soon after the last promotion"),
    "metric_improvement": ("reject", "Not enough better than the version in production"),
    "calibration_maintained": ("reject", "Better F1, but its probabilities are less reliable"),
    "no_segment_regression": ("reject", "Better on the whole, but worse for an important segment"),
    NO_COVERAGE: ("reject", "It could not be evaluated: the coverage of the labels is unknown"),
}


@dataclass(frozen=True)
class Ramp:
    """A drift that grows from 0 to `height` between two moments, as fractions of the whole time, and then ends."""

    start: float
    end: float
    height: float

    def at(self, part: float) -> float:
        """The height at a fraction of the whole time."""
        return self.height * (part - self.start) / (self.end - self.start) if self.start <= part < self.end else 0.0


@dataclass(frozen=True)
class Model:
    """A model, and the outcomes of its candidates in the order of time.

    Attributes:
        name: its model_name.
        features: its features; the first ones drift most.
        drift_tests: the arguments of Evidently's DataDriftPreset that choose the drift tests.
        predictions: the number of predictions between two measurements.
        positive_rate: the share of positive predictions.
        f1_score: the F1 score of its first version.
        outcomes: the outcome of each candidate: `first`, `promote`, `retrained` (promoted, which ends the first drift),
            `rolled back` (after it was promoted), `pending`, or the gate that it failed.
        drifts: the drifts of its features.
        failing_feature: a feature whose drift score cannot be computed now and then, and at the end.
        silent_coverage: whether the coverage of its labels is not measured any more.
        categories: those features that are categories.
    """

    name: str
    features: tuple[str, ...]
    drift_tests: Mapping[str, str]
    predictions: int
    positive_rate: float
    f1_score: float
    outcomes: tuple[str, ...]
    drifts: tuple[Ramp, ...] = ()
    failing_feature: str | None = None
    silent_coverage: bool = False
    categories: frozenset[str] = frozenset()


_PSI: Mapping[str, str] = {"method": "psi"}
# Of few rows, p-values: a low one means drift.
_P_VALUES: Mapping[str, str] = {"cat_method": "chisquare", "num_method": "ks"}
MODELS = (
    Model(
        "churn",
        ("days_since_login", "plan", "monthly_spend", "tickets", "tenure"),
        _PSI,
        4_000,
        0.18,
        0.66,
        (
            "first", "metric_improvement", "promote", "promotion_cooldown", "rolled back", "metric_improvement",
            "sufficient_samples", "promote", "no_segment_regression", "promote", "metric_improvement",
            "calibration_maintained",
        ),
        failing_feature="days_since_login",
    ),
    Model(
        "fraud",
        ("amount", "merchant_category", "device_age", "country", "hour_of_day"),
        _PSI,
        22_000,
        0.012,
        0.71,
        (
            "first", "metric_improvement", "metric_improvement", "promote", "metric_improvement",
            "calibration_maintained", "retrained", "metric_improvement", "promote", "promotion_cooldown",
            "metric_improvement", "pending",
        ),
        drifts=(Ramp(0.34, 0.54, 1.0),),
    ),
    Model(
        "lead_scoring",
        ("source", "company_size", "visits", "industry", "days_open"),
        _P_VALUES,
        900,
        0.31,
        0.62,
        (
            "first", "promote", "minimum_coverage", "metric_improvement", "promote", "no_segment_regression",
            "metric_improvement", "promote", "metric_improvement", "metric_improvement", "promote", NO_COVERAGE,
        ),
        drifts=(Ramp(0.9, 1.1, 1.4),),
        silent_coverage=True,
        categories=frozenset({"source", "industry"}),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A version that was trained, and the decision about it.

    Attributes:
        at: the time of the decision, in UTC.
        model_name: the model.
        run_id: the MLflow run.
        version: the version, counted from 1.
        f1_score: the F1 score before the decision.
        brier_score: the Brier score before the decision; None if it was not measured.
        action: promote, reject or pending.
        gates: the results in the order of the evaluation, which stops at the first failure; None if no gate ran.
        reasoning: the reason, in words.
        flawed: whether it is worse in production than in the evaluation.
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
    """A rollback of a promotion.

    Attributes:
        at: its time, in UTC.
        model_name: the model.
        run_id: the MLflow run of the version that was in production.
        reasoning: the reason, in words.
    """

    at: datetime
    model_name: str
    run_id: str
    reasoning: str


class Story:
    """The events of the days before `now`."""

    def __init__(self, *, now: datetime, days: int, seed: int) -> None:
        """Make up the events.

        Args:
            now: the end, aware; it is rounded down to the hour.
            days: the number of days.
            seed: the seed of the random numbers.
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
        """The fraction of the whole time that has passed: 0 to 1."""
        return (at - self.begin) / (self.now - self.begin)

    def in_production(self, model_name: str) -> list[tuple[datetime, Candidate]]:
        """The versions that were in production and when each period began, oldest first."""
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
            at = self.begin + total * (number + 0.5 + random.uniform(-0.15, 0.1)) / len(model.outcomes)
            if outcome == "first":
                at = self.begin
            elif outcome == "retrained":
                at = self.begin + total * model.drifts[0].end
            elif outcome == "promotion_cooldown":
                at = promoted_at + min(timedelta(days=random.uniform(2, 5)), total / 50)
            better = random.uniform(-0.01, 0.018) if outcome == "metric_improvement" else random.uniform(0.024, 0.045)
            candidate_f1 = f1 if outcome == "first" else min(0.97, f1 * (1 + better))
            candidate_brier = (
                brier * random.uniform(0.94, 0.99) if outcome != "calibration_maintained" else brier + 0.016
            )
            run_id = f"{random.getrandbits(128):032x}"
            action, reasoning = _OUTCOMES[outcome]
            gates = None
            if outcome != "first":
                gates = _gates(
                    outcome,
                    random,
                    improvement=candidate_f1 / f1 - 1,
                    # The first version of a model may have no Brier score to compare with.
                    brier_change=math.inf if number == 1 and model.silent_coverage else candidate_brier - brier,
                    age=at - promoted_at,
                )
            candidate = Candidate(
                at=at,
                model_name=model.name,
                run_id=run_id,
                version=number + 1,
                f1_score=round(candidate_f1, 4),
                brier_score=None if outcome == "first" and model.silent_coverage else round(candidate_brier, 4),
                action=action,
                gates=gates,
                reasoning=reasoning,
                flawed=outcome == "rolled back",
            )
            yield candidate
            if candidate.flawed:
                reason = "F1 in production fell by 0.08 within days: customers on the new plan are scored too low"
                yield Rollback(at + min(ROLLED_BACK_AFTER, total / 50), model.name, run_id, reason)
            elif action == "promote":
                f1, brier, promoted_at = candidate_f1, candidate_brier, at


def _gates(outcome: str, random: Random, *, improvement: float, brier_change: float, age: timedelta) -> dict[str, Any]:
    """The results of the gates in the order of the evaluation, up to the one that failed."""
    if outcome == NO_COVERAGE:
        return {NO_COVERAGE: {"passed": False, "error": "no coverage measured in the last 24 hours"}}
    samples = random.randint(60, 190) if outcome == "sufficient_samples" else random.randint(400, 6_000)
    coverage = random.uniform(12, 28) if outcome == "minimum_coverage" else random.uniform(45, 92)
    cooldown = "no promotion in the cooldown period"
    if outcome == "promotion_cooldown":
        cooldown = f"{age / timedelta(days=1):.1f} days since the last promotion; {COOLDOWN.days} are required"
    regressions = ["segment plan=enterprise: f1 0.61 -> 0.52"] if outcome == "no_segment_regression" else []
    change = brier_change if math.isinf(brier_change) else round(brier_change, 4)
    gates: dict[str, Any] = {}
    for gate, details in (
        ("sufficient_samples", {"num_samples": samples, "min_required": 200}),
        ("minimum_coverage", {"coverage_pct": round(coverage, 1), "min_required_pct": 30}),
        ("promotion_cooldown", {"message": cooldown}),
        ("metric_improvement", {"f1_improvement_pct": round(100 * improvement, 2), "threshold": 2.0}),
        ("calibration_maintained", {"brier_change": change, "threshold": 0.01}),
        ("no_segment_regression", {"issues": regressions}),
    ):
        gates[gate] = {"passed": gate != outcome, **details}
        if gate == outcome:
            break
    return gates
