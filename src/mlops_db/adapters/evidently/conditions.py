"""The conditions of a report's tests: what they are called, and the bounds that they set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from mlops_db.adapters.evidently.names import words

Interval = tuple[float | None, float | None]  # the least and the greatest value that is normal

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "EqualMetricTest": "eq",
        "NotEqualMetricTest": "not_eq",
        "GreaterThanMetricTest": "gt",
        "GreaterOrEqualMetricTest": "gte",
        "LessThanMetricTest": "lt",
        "LessOrEqualMetricTest": "lte",
        "IsInMetricTest": "is_in",
        "NotInMetricTest": "not_in",
    }
)
_DETAILS = frozenset({"type", "alias", "is_critical", "label_filters"})
_SUBJECTS = ("threshold", "expected", "values")


def condition(test: Mapping[str, Any]) -> dict[str, Any]:
    """A test's condition as parameters of a series: `gte: 3`, or `eq: reference, relative: 0.1`."""
    name = _name(test)
    told = {key: value for key, value in test.items() if key not in _DETAILS and value is not None}
    if name in _NAMES.values() and len(told) == 1 and next(iter(told)) in _SUBJECTS:
        (told[name],) = told.values()
        told = {name: told[name]}
        if isinstance(told[name], Mapping):  # about as much as a number, or as the reference has
            about = {key: value for key, value in told[name].items() if value is not None}
            told = {name: about.pop("value", "reference"), **about}
    else:
        told = {name: told}
    filters = test.get("label_filters")
    return {**told, "where": filters} if filters else told


def bounds(test: Mapping[str, Any]) -> Interval:
    """Between which values a test passes; None and None where that is no interval, or the reference decides.

    A view calls a value low below the first, and high above the second: where a test fails at its threshold itself, the
    bound is the next number beside it.
    """
    subject = test.get("threshold", test.get("expected"))
    about = 0.0
    if isinstance(subject, Mapping):
        if not {"value", "relative", "absolute"} <= subject.keys():
            return None, None
        about = max(abs(subject["value"]) * subject["relative"], subject["absolute"])
        subject = subject["value"]
    if not isinstance(subject, int | float) or not math.isfinite(subject):
        return None, None
    least, greatest = float(subject) - about, float(subject) + about
    intervals: dict[str, Interval] = {
        "eq": (least, greatest),
        "gte": (least, None),
        "gt": (math.nextafter(greatest, math.inf), None),
        "lte": (None, greatest),
        "lt": (None, math.nextafter(least, -math.inf)),
    }
    return intervals.get(_name(test), (None, None))


def common(intervals: Iterable[Interval]) -> Interval:
    """The interval that lies within all of them; where they contradict each other, the least is above the greatest."""
    listed = list(intervals)
    return (
        max((least for least, _ in listed if least is not None), default=None),
        min((greatest for _, greatest in listed if greatest is not None), default=None),
    )


def _name(test: Mapping[str, Any]) -> str:
    kind = str(test.get("type", "")).rpartition(":")[2]
    return _NAMES.get(kind, words(kind))
