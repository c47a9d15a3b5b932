"""How series are named: by what was measured alone, never by its place in the report or by what else is in it.

`metric.column.label[parameter=value,...]`, such as `drift_score.age[method=ks]`. A part that holds a character of the
syntax is quoted as JSON: `drift_score."net.income"[method=ks]`. So two metrics that differ never get one name.
"""

from __future__ import annotations

import json
import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DRIFT, PERFORMANCE, QUALITY, TEST = "drift", "performance", "quality", "test"
DATASET_DRIFT = "dataset_drift_detected"
DRIFTED_COUNT, DRIFTED_SHARE = "number_of_drifted_columns", "share_of_drifted_columns"
DRIFT_SCORE = "drift_score"

# The names that `method=` takes, by those that Evidently shows where it chose the test itself.
_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "Absolute text content drift": "abs_text_content_drift",
        "Anderson-Darling": "anderson",
        "Cramer-von Mises": "cramer_von_mises",
        "Energy-distance": "ed",
        "Epps-Singleton": "es",
        "Fisher's Exact test": "fisher_exact",
        "Hellinger distance": "hellinger",
        "Jensen-Shannon distance": "jensenshannon",
        "K-S p_value": "ks",
        "Kullback-Leibler divergence": "kl_div",
        "Mann-Whitney U-rank test": "mannw",
        "PSI": "psi",
        "Percentile text content drift": "perc_text_content_drift",
        "Total-Variation-Distance": "TVD",
        "Wasserstein distance (normed)": "wasserstein",
        "Z-test p_value": "z",
        "chi-square p_value": "chisquare",
    }
)
# A report holds a score, a test and a threshold, and not what they amount to: when a column has drifted. Every other
# test of Evidently's is a p-value, and a column has drifted below the threshold.
_DRIFTED_IF: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("ed", "perc_text_content_drift", "abs_text_content_drift"), ">"),
        **dict.fromkeys(("hellinger", "jensenshannon", "kl_div", "psi", "wasserstein"), ">="),
        **dict.fromkeys(("ks", "cramer_von_mises"), "<="),
    }
)
_PLAIN = re.compile(r"[^\s.,=\[\]\"\\]+(?: [^\s.,=\[\]\"\\]+)*")  # blanks only between words


def method_name(method: str) -> str:
    """A drift test by the name that `method=` takes, whichever of its two names a report shows."""
    return _METHODS.get(method, method)


def drift_bounds(method: str, threshold: float) -> tuple[float | None, float | None]:
    """The lowest and the highest score that is no drift.

    A view calls a value low below the first, and high above the second: where a column has drifted at the threshold
    itself, the bound is the next number beside it.
    """
    drifted_if = _DRIFTED_IF.get(method_name(method), "<")
    if drifted_if == "<":
        return threshold, None
    if drifted_if == "<=":
        return math.nextafter(threshold, math.inf), None
    return None, threshold if drifted_if == ">" else math.nextafter(threshold, -math.inf)


def series_name(metric: str, *parts: str, parameters: Mapping[str, str] = MappingProxyType({})) -> str:
    """The metric_name of a metric.

    Args:
        metric: the metric, in words with underscores.
        parts: what it is of: the column, the label, the statistic.
        parameters: what else tells it from others of its kind.
    """
    told = ",".join(f"{_part(key)}={_part(value)}" for key, value in sorted(parameters.items()))
    return ".".join((metric, *map(_part, parts))) + (f"[{told}]" if told else "")


def drift_score_name(column: str, method: str, parameters: Mapping[str, str] = MappingProxyType({})) -> str:
    """The metric_name of a column's drift score: a p-value and a distance are never one series."""
    return series_name(DRIFT_SCORE, column, parameters={**parameters, "method": method_name(method)})


def _part(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
