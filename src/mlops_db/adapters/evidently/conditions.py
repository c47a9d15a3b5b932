"""The conditions of tests and of drift: how series name them, and the interval of normal values that they set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from mlops_db.adapters.evidently.names import method_name, without_none, words

Interval = tuple[float | None, float | None]  # the lowest and the highest normal value

_NAMES: Mapping[str, str] = {
    "EqualMetricTest": "eq",
    "NotEqualMetricTest": "not_eq",
    "GreaterThanMetricTest": "gt",
    "GreaterOrEqualMetricTest": "gte",
    "LessThanMetricTest": "lt",
    "LessOrEqualMetricTest": "lte",
    "IsInMetricTest": "is_in",
    "NotInMetricTest": "not_in",
}
_DETAILS = frozenset({"type", "alias", "is_critical", "label_filters"})
_SUBJECTS = ("threshold", "expected", "values")
# Which scores mean "not drifted", compared with the threshold. A report holds a score, a drift test and a threshold,
# but not the verdict. A drift test that is not here is a program's own, or compares with something else than the
# threshold, as perc_text_content_drift does.
_NOT_DRIFTED: Mapping[str, str] = {
    **dict.fromkeys(
        ("anderson", "chisquare", "empirical_mmd", "es", "fisher_exact", "g_test", "mannw", "t_test", "TVD", "z"),
        "gte",
    ),
    **dict.fromkeys(("ks", "cramer_von_mises"), "gt"),
    **dict.fromkeys(("ed", "abs_text_content_drift"), "lte"),
    **dict.fromkeys(("hellinger", "jensenshannon", "kl_div", "psi", "wasserstein"), "lt"),
}


def condition(test: Mapping[str, Any]) -> dict[str, Any]:
    """A test's condition as parameters of a series: `gte: 3`, or `eq: reference, relative: 0.1`."""
    name = _name(test)
    details = without_none({key: value for key, value in test.items() if key not in _DETAILS})
    parameters: dict[str, Any] = {name: details}
    if name in _NAMES.values() and len(details) == 1 and next(iter(details)) in _SUBJECTS:
        (subject,) = details.values()
        parameters = {name: subject}
        if isinstance(subject, Mapping):  # approximately a number, or approximately the value of the reference
            approximate = without_none(subject)
            parameters = {name: approximate.pop("value", "reference"), **approximate}
    filters = test.get("label_filters")
    return {**parameters, "where": filters} if filters else parameters


def passing_interval(test: Mapping[str, Any]) -> Interval:
    """The values with which a test passes; None and None if they are not an interval, or the reference decides."""
    subject = test.get("threshold", test.get("expected"))
    tolerance = 0.0
    if isinstance(subject, Mapping):
        if not {"value", "relative", "absolute"} <= subject.keys():
            return None, None
        tolerance = max(abs(subject["value"]) * subject["relative"], subject["absolute"])
        subject = subject["value"]
    if not isinstance(subject, int | float) or not math.isfinite(subject):
        return None, None
    return _interval(_name(test), float(subject) - tolerance, float(subject) + tolerance)


def drift_interval(method: str, threshold: float | None) -> Interval:
    """The scores that are no drift; None and None if the drift test or its threshold is unknown."""
    if threshold is None:
        return None, None
    return _interval(_NOT_DRIFTED.get(method_name(method), ""), threshold, threshold)


def intersect(intervals: Iterable[Interval]) -> Interval:
    """The interval that lies within all of them; if they contradict each other, the lowest is above the highest."""
    listed = list(intervals)
    return (
        max((lower for lower, _ in listed if lower is not None), default=None),
        min((upper for _, upper in listed if upper is not None), default=None),
    )


def _interval(comparison: str, least: float, greatest: float) -> Interval:
    """The values that compare so with the range from `least` to `greatest`.

    A view calls a value low below the first, and high above the second. A comparison that excludes the threshold
    itself gives the next number beside it.
    """
    intervals: dict[str, Interval] = {
        "eq": (least, greatest),
        "gte": (least, None),
        "gt": (math.nextafter(greatest, math.inf), None),
        "lte": (None, greatest),
        "lt": (None, math.nextafter(least, -math.inf)),
    }
    return intervals.get(comparison, (None, None))


def _name(test: Mapping[str, Any]) -> str:
    kind = str(test.get("type", "")).rpartition(":")[2]
    return _NAMES.get(kind, words(kind))
