"""Make up the metrics that monitoring measured: with days and weekends, noise, and the effects of drift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

from mlops_db.demo.story import MODELS
from mlops_db.storage.metrics.bounds import Bounds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from mlops_db.demo.story import Candidate, Model, Story

EVERY = timedelta(hours=4)
STEPS_A_DAY = timedelta(days=1) // EVERY
DRIFT_SHARE = 0.5
FAILURES = 0.005  # of the drift scores of a feature that fails now and then: one a month
FAILURES_AT_THE_END = 3
SATURDAY = 5


@dataclass(frozen=True)
class DriftTest:
    """A drift test of Evidently's.

    Attributes:
        method: its name.
        threshold: its threshold.
        lower: the lowest score that is no drift, of a p-value.
        upper: the highest score that is no drift, of a distance.
    """

    method: str
    threshold: float
    lower: float | None = None
    upper: float | None = None

    def is_drift(self, score: float) -> bool:
        """Whether the score means drift."""
        return (self.lower is not None and score < self.lower) or (self.upper is not None and score > self.upper)


DRIFT_TESTS = {
    test.method: test
    for test in (
        DriftTest("psi", 0.1, upper=math.nextafter(0.1, 0)),
        DriftTest("ks", 0.05, lower=math.nextafter(0.05, 1)),
        DriftTest("chisquare", 0.05, lower=0.05),
    )
}

_Value = tuple[str, str, "float | None", "dict[str, Any] | None"]


def measurements(story: Story) -> Iterator[dict[str, Any]]:
    """The rows for `db.monitoring.log_many`, oldest first: every four hours, and performance once a day."""
    random = {model.name: Random(f"{story.seed} {model.name} metrics") for model in MODELS}  # noqa: S311  (no secret)
    production = {model.name: story.in_production(model.name) for model in MODELS}
    steps = story.days * STEPS_A_DAY
    for step in range(steps + 1):
        at = story.begin + step * EVERY
        for model in MODELS:
            version = [version for since, version in production[model.name] if since <= at][-1]
            drift = sum(ramp.at(story.part(at)) for ramp in model.drifts)
            values = [
                *_predictions(model, at, drift, random[model.name]),
                *_drift(model, drift, steps - step, random[model.name]),
            ]
            if not (model.silent_coverage and at >= story.silent_since):
                values += _coverage(model, at, random[model.name])
            if step % STEPS_A_DAY == 0:
                values += _performance(version, drift, random[model.name])
            for metric_type, name, value, metadata in values:
                yield {
                    "metric_type": metric_type,
                    "metric_name": name,
                    "metric_value": value,
                    "metadata": metadata,
                    "timestamp": at,
                    "model_name": model.name,
                }


def drift_test(model: Model, feature: str) -> DriftTest:
    """The drift test of a feature."""
    kind = "cat_method" if feature in model.categories else "num_method"
    return DRIFT_TESTS[model.drift_tests.get("method") or model.drift_tests[kind]]


def bounds(model: Model) -> Iterator[Bounds]:
    """What is normal of the model's series: the thresholds of its jobs, and those of its drift report."""
    detected, _, share = _dataset_names(model)
    for metric_type, name, lower, upper in (
        ("performance", "f1_score", 0.6, None),
        ("performance", "brier_score", None, 0.25),
        ("performance", "ece", None, 0.08),
        ("coverage", "coverage_rate", 0.3, None),
        ("drift", detected, None, 0.0),
        ("drift", share, None, math.nextafter(DRIFT_SHARE, 0)),
    ):
        yield Bounds(metric_type, name, lower, upper, model.name)
    for feature in model.features:
        test = drift_test(model, feature)
        yield Bounds("drift", f"drift_score.{feature}[method={test.method}]", test.lower, test.upper, model.name)


def _predictions(model: Model, at: datetime, drift: float, random: Random) -> Iterator[_Value]:
    weekend = 0.7 if at.weekday() >= SATURDAY else 1.0
    count = max(1, round(model.predictions * weekend * (1 + 0.6 * _day_wave(at)) * random.uniform(0.92, 1.08)))
    rate = min(0.95, model.positive_rate * (1 + 0.08 * _day_wave(at) + 0.5 * drift) * random.uniform(0.94, 1.06))
    mean = min(0.95, rate * 0.9 + 0.05)
    for name, value in (
        ("num_predictions", count),
        ("positive_rate", rate),
        ("probability_mean", mean),
        ("probability_std", 0.18 + 0.04 * drift + random.gauss(0, 0.004)),
        ("probability_median", mean * 0.8),
        ("probability_q25", mean * 0.4),
        ("probability_q75", min(0.99, mean * 1.5)),
        ("entropy", -rate * math.log2(rate) - (1 - rate) * math.log2(1 - rate)),
    ):
        yield "prediction", name, round(value, 5), None


def _drift(model: Model, drift: float, steps_left: int, random: Random) -> Iterator[_Value]:
    """What `adapters.evidently` makes of a report with DataDriftPreset."""
    fails = random.random() < FAILURES or steps_left < FAILURES_AT_THE_END
    failing = model.failing_feature if fails else None
    drifted = 0
    for place, feature in enumerate(model.features):
        test = drift_test(model, feature)
        details: dict[str, Any] = {"feature": feature, "stat_test": test.method, "threshold": test.threshold}
        score = None
        if feature == failing:
            details["error"] = "Evidently computed nan"
        else:
            score = _drift_score(test, drift * (1 - place / len(model.features)), random)
            details["drift_detected"] = test.is_drift(score)
            drifted += details["drift_detected"]
        yield "drift", f"drift_score.{feature}[method={test.method}]", score, details
    share = drifted / len(model.features)
    values: tuple[float | None, ...] = (float(share >= DRIFT_SHARE), float(drifted), share)
    details = {"stat_test" if key == "method" else key: value for key, value in model.drift_tests.items()}
    details["drift_share"] = DRIFT_SHARE
    if failing:
        details |= {"error": f"no drift score of {failing}", "at_least": {"count": drifted, "share": share}}
        values = (values[0] or None, None, None)
    for name, value in zip(_dataset_names(model), values, strict=True):
        yield "drift", name, value, details


def _drift_score(test: DriftTest, drift: float, random: Random) -> float:
    """A distance grows with drift, a p-value falls. Now and then one says drift, and nothing comes of it."""
    if test.upper is not None:
        return round(0.012 + random.expovariate(1 / 0.018) + 0.22 * drift, 4)
    return float(f"{math.sqrt(random.random()) * math.exp(-9 * drift):.4g}")


def _dataset_names(model: Model) -> tuple[str, str, str]:
    tests = ",".join(f"{key}={value}" for key, value in sorted(model.drift_tests.items()))
    return (
        f"dataset_drift_detected[{tests}]",
        f"number_of_drifted_columns[{tests}]",
        f"share_of_drifted_columns[{tests}]",
    )


def _coverage(model: Model, at: datetime, random: Random) -> Iterator[_Value]:
    rate = min(0.97, max(0.02, 0.72 + 0.08 * _day_wave(at) + random.gauss(0, 0.03)))
    yield "coverage", "coverage_rate", round(rate, 4), None
    yield "coverage", "labelled_predictions", round(rate * model.predictions), None


def _performance(version: Candidate, drift: float, random: Random) -> Iterator[_Value]:
    details = {"model_version": str(version.version), "window_hours": 24}
    f1 = version.f1_score - 0.12 * drift - (0.08 if version.flawed else 0) + random.gauss(0, 0.008)
    brier = (version.brier_score or 0.2) + 0.05 * drift + (0.03 if version.flawed else 0) + random.gauss(0, 0.004)
    for name, value in (
        ("f1_score", f1),
        ("precision", f1 + random.gauss(0.02, 0.01)),
        ("recall", f1 - random.gauss(0.02, 0.01)),
        ("accuracy", f1 + 0.15),
        ("roc_auc", f1 + 0.12 + random.gauss(0, 0.005)),
        ("brier_score", brier),
        ("ece", abs(random.gauss(0.03, 0.006)) + 0.04 * drift),
    ):
        yield "performance", name, round(min(0.995, max(0.005, value)), 4), details


def _day_wave(at: datetime) -> float:
    """From -1 at four in the morning to 1 at four in the afternoon."""
    return -math.cos(2 * math.pi * (at.hour - 4) / 24)
