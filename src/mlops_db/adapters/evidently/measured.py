"""What a reader of reports yields: values, and what no value tells."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from mlops_db.adapters.evidently.names import DRIFT, Series

# The values of tests' results; of a test that is not critical, Evidently only warns.
PASSED: Mapping[str, float] = MappingProxyType({"SUCCESS": 1.0, "FAIL": 0.0, "WARNING": 0.0})


@dataclass(frozen=True)
class Measured:
    """One value of a report.

    Attributes:
        metric_type: the kind of metric: drift, performance, quality or test.
        metric_name: what was measured, by the rules of `names`.
        value: the value; None if it could not be computed, with the reason in `metadata["error"]`.
        metadata: details, as JSON has them.
        lower: the least value that is normal, as a threshold or a test of the report says; None: there is none.
        upper: the greatest value that is normal.
    """

    metric_type: str
    metric_name: str
    value: float | None
    metadata: dict[str, Any] = field(default_factory=dict)
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """What a report holds and no row tells.

    Attributes:
        name: the metric, as it would be called.
        reason: why it is left out.
    """

    name: str
    reason: str


def measured(metric_type: str, series: Series, value: object, metadata: Mapping[str, Any]) -> Measured:
    """A value as it stands in the report: what is no finite number is None, with the reason."""
    number = finite(value)
    told = "the report has no value of it" if value is None else f"Evidently computed {str(value)[:100]}"
    error = {} if number is not None else {"error": told}
    return Measured(metric_type, str(series), number, {**error, **metadata})


def dataset_measured(
    series: tuple[Series, Series, Series],
    values: tuple[object, object, object],
    drift_share: float | None,
    metadata: Mapping[str, Any],
    without_score: Collection[str],
) -> tuple[Measured, Measured, Measured]:
    """Whether a dataset has drifted, and how many and which share of its columns have.

    Args:
        series: what `names.dataset_drift` calls them.
        values: what the report says of them.
        drift_share: the share of columns from which on the dataset has drifted; None where nobody knows it.
        metadata: details of all three.
        without_score: columns whose score is NaN. Evidently counts them as such that have not drifted.
    """
    if without_score:
        detected, count, share = values
        values = (detected or None, None, None)
        error = f"no drift score of {', '.join(sorted(without_score))}"
        metadata = {"error": error, "at_least": {"count": count, "share": share}, **metadata}
    detected, count, share = (
        measured(DRIFT, name, value, metadata) for name, value in zip(series, values, strict=True)
    )
    upper = None if drift_share is None else math.nextafter(drift_share, -math.inf)
    return replace(detected, upper=0.0), count, replace(share, upper=upper)


def finite(value: object) -> float | None:
    """The value as a number; None where it is none, or not finite."""
    try:
        return float(value) if isinstance(value, bool | int | float) and math.isfinite(value) else None
    except OverflowError:  # a whole number that no double holds
        return None
