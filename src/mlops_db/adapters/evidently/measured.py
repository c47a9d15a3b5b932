"""What a reader of reports yields: values, and what no value tells."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One value of a report.

    Attributes:
        metric_type: the kind of metric: drift, performance, quality or test.
        metric_name: what was measured, by the rules of `names`.
        value: the value; None if it could not be computed, with the reason in `metadata["error"]`.
        metadata: details, as JSON takes them.
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
