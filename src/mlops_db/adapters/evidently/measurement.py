"""What the readers of reports yield: values, and what has no row."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlops_db.adapters.evidently.conditions import drift_interval
from mlops_db.adapters.evidently.names import DRIFT, TEST, Series

# The value of a test by its status. Evidently only warns if a test that is not critical fails.
_PASSED: Mapping[str, float] = {"SUCCESS": 1.0, "FAIL": 0.0, "WARNING": 0.0}


@dataclass(frozen=True)
class Measurement:
    """One value of a report.

    Attributes:
        metric_type: drift, performance, quality or test.
        metric_name: what was measured, by the rules of `names`.
        value: the value; None if Evidently could not compute it. `metadata["error"]` then has the reason.
        metadata: details, as JSON has them.
        lower: the lowest normal value, by a threshold or a test of the report; None if there is no such limit.
        upper: the highest normal value, likewise.
    """

    metric_type: str
    metric_name: str
    value: float | None
    metadata: dict[str, Any] = field(default_factory=dict)
    lower: float | None = None
    upper: float | None = None

    @classmethod
    def of(cls, metric_type: str, series: Series, value: object, metadata: Mapping[str, Any]) -> "Measurement":
        """A value of the report; None with the reason if it is not a finite number."""
        number = finite(value)
        reason = "the report has no value of it" if value is None else f"Evidently computed {str(value)[:100]}"
        error = {} if number is not None else {"error": reason}
        return cls(metric_type, str(series), number, {**error, **metadata})

    @classmethod
    def of_drift(
        cls, series: Series, value: object, method: str, threshold: float | None, metadata: Mapping[str, Any]
    ) -> "Measurement":
        """The drift score of a column, with the interval in which the column has not drifted."""
        lower, upper = drift_interval(method, threshold)
        return replace(cls.of(DRIFT, series, value, metadata), lower=lower, upper=upper)

    @classmethod
    def of_test(cls, series: Series, test: Mapping[str, Any], metadata: Mapping[str, Any]) -> "Measurement":
        """The result of a test of the report: 1 if it passed, 0 if it failed, None if it raised an error."""
        status = str(test.get("status")).rpartition(".")[2]
        error = {} if status in _PASSED else {"error": str(test.get("description") or f"the test's status is {status}")}
        return cls(TEST, str(series), _PASSED.get(status), {"status": status, **metadata, **error})


@dataclass(frozen=True)
class LeftOut:
    """A part of a report that has no row.

    Attributes:
        name: the metric, under the name that its series would have.
        reason: why it is left out.
    """

    name: str
    reason: str


def dataset_measurements(
    series: tuple[Series, Series, Series],
    values: tuple[object, object, object],
    drift_share: float | None,
    metadata: Mapping[str, Any],
    without_score: Collection[str],
) -> tuple[Measurement, Measurement, Measurement]:
    """Whether a dataset has drifted, how many of its columns have drifted, and which share of them.

    Args:
        series: the three series, from `names.dataset_drift`.
        values: the values of the report.
        drift_share: the dataset has drifted from this share of drifted columns on; None if the report does not hold it.
        metadata: details of all three.
        without_score: columns whose score is NaN. Evidently counts them as not drifted.
    """
    if without_score:
        detected, count, share = values
        values = (detected or None, None, None)
        error = f"no drift score of {', '.join(sorted(without_score))}"
        metadata = {"error": error, "at_least": {"count": count, "share": share}, **metadata}
    detected, count, share = (
        Measurement.of(DRIFT, name, value, metadata) for name, value in zip(series, values, strict=True)
    )
    upper = None if drift_share is None else math.nextafter(drift_share, -math.inf)
    return replace(detected, upper=0.0), count, replace(share, upper=upper)


def finite(value: object) -> float | None:
    """The value as a number; None if it is not a finite number."""
    try:
        return float(value) if isinstance(value, bool | int | float) and math.isfinite(value) else None
    except OverflowError:  # an integer that no double holds
        return None
