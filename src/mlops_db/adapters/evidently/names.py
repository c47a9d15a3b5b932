"""How series are named: by what was measured alone, never by its place in the report or by what else is in it.

`metric.column.label[parameter=value,...]`, such as `drift_score.age[method=ks]`. What holds a character of the syntax
is quoted as JSON is, `drift_score."net.income"[method=ks]`, and so is a text that reads like a number: metrics that
differ never get one name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from mlops_db.schema.limits import MAX_CHARACTERS

DRIFT, PERFORMANCE, QUALITY, TEST = "drift", "performance", "quality", "test"
DATASET_DRIFT = "dataset_drift_detected"
DRIFTED_COUNT, DRIFTED_SHARE = "number_of_drifted_columns", "share_of_drifted_columns"
DRIFT_SCORE = "drift_score"
DEFAULT_DRIFT_SHARE = 0.5

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
# A report holds a score, a test and a threshold, and not what they amount to: when a column has drifted. A test that is
# not here is a program's own, or compares with something else than the threshold, as perc_text_content_drift does.
_DRIFTED_IF: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("anderson", "chisquare", "empirical_mmd", "es", "fisher_exact", "g_test", "mannw", "t_test", "TVD", "z"),
            "<",
        ),
        **dict.fromkeys(("ks", "cramer_von_mises"), "<="),
        **dict.fromkeys(("ed", "abs_text_content_drift"), ">"),
        **dict.fromkeys(("hellinger", "jensenshannon", "kl_div", "psi", "wasserstein"), ">="),
    }
)
_SYNTAX = r"\s.,=\[\]{}\"\\"
_PLAIN = re.compile(rf"[^{_SYNTAX}]+(?: [^{_SYNTAX}]+)*")  # blanks only between words
_DIGITS_OF_DIGEST = 16


@dataclass(frozen=True)
class Series:
    """What was measured; its text is the metric_name.

    Attributes:
        metric: the metric, in words with underscores.
        parts: what it is of: the column, the label, the statistic.
        parameters: what else tells it from others of its kind: texts, numbers, booleans, None, and lists and mappings
            of them. The order of a list tells nothing.
    """

    metric: str
    parts: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def of(self, *parts: str) -> Series:
        """A part of it."""
        return replace(self, parts=(*self.parts, *parts))

    def where(self, parameters: Mapping[str, Any]) -> Series:
        """The same with more parameters."""
        return replace(self, parameters={**self.parameters, **parameters})

    def __str__(self) -> str:
        """The metric_name, of any length."""
        told = ",".join(f"{_quoted(key)}={_told(value)}" for key, value in sorted(self.parameters.items()))
        return ".".join(map(_quoted, (self.metric, *self.parts))) + (f"[{told}]" if told else "")


def words(name: str) -> str:
    """The name of a class in words: `f1_by_label` of F1ByLabel."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def method_name(method: str) -> str:
    """A drift test by the name that `method=` takes, whichever of its two names a report shows."""
    return _METHODS.get(method, method)


def is_chosen(method: str) -> bool:
    """Whether a report that shows this name of a drift test says that Evidently chose it."""
    return method in _METHODS


def told_method(column: str, parameters: Mapping[str, Any]) -> str | None:
    """The drift test of a column, where parameters of DataDriftPreset or DriftedColumnsCount tell it; else None.

    `num_method` and its like go before `method`, and which of them is the column's, the parameters do not tell.
    """
    of_column: str | None = (parameters.get("per_column_method") or {}).get(column)
    return of_column or (None if tells_types(parameters) else parameters.get("method"))


def tells_types(parameters: Mapping[str, Any]) -> bool:
    """Whether the parameters have a drift test for the columns of a type."""
    return any(parameters.get(f"{kind}_method") for kind in ("num", "cat", "text"))


def drift_score(column: str, method: str | None) -> Series:
    """The drift score of a column. A p-value and a distance are never one series, so the method is told.

    Args:
        column: the column.
        method: the drift test by either of its names; None where nobody knows it.
    """
    return Series(DRIFT_SCORE, (column,), {} if method is None else {"method": method_name(method)})


def dataset_drift(parameters: Mapping[str, Any]) -> tuple[Series, Series, Series]:
    """Whether the dataset has drifted, and how many and which share of its columns have.

    Args:
        parameters: those of DataDriftPreset and DriftedColumnsCount. `drift_share` makes no difference to how many
            columns have drifted; everything else does.
    """
    told = {key: value for key, value in parameters.items() if key != "drift_share" and value is not None}
    share = parameters.get("drift_share", DEFAULT_DRIFT_SHARE)
    verdict = told if share in (None, DEFAULT_DRIFT_SHARE) else {**told, "drift_share": share}
    return Series(DATASET_DRIFT, (), verdict), Series(DRIFTED_COUNT, (), told), Series(DRIFTED_SHARE, (), told)


def drift_bounds(method: str, threshold: float | None) -> tuple[float | None, float | None]:
    """The lowest and the highest score that is no drift; None and None where the method or the threshold is not known.

    A view calls a value low below the first, and high above the second: where a column has drifted at the threshold
    itself, the bound is the next number beside it.
    """
    if threshold is None:
        return None, None
    drifted_if = _DRIFTED_IF.get(method_name(method), "")
    if drifted_if.startswith("<"):
        return math.nextafter(threshold, math.inf) if drifted_if == "<=" else threshold, None
    if drifted_if.startswith(">"):
        return None, math.nextafter(threshold, -math.inf) if drifted_if == ">=" else threshold
    return None, None


def fitting(name: str) -> str:
    """The name as a column takes it: what is too long ends with a digest of the whole instead."""
    most = MAX_CHARACTERS["metric_name"]
    if len(name) <= most:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS_OF_DIGEST]
    return f"{name[: most - _DIGITS_OF_DIGEST - 1]}~{digest}"


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quoted(str(key))}={_told(part)}" for key, part in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(sorted(map(_told, value)))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if _is_literal(value) else _quoted(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # 18 and 18.0 are one number, and tools that write JSON change one into the other
    return json.dumps(value)


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isprintable() else json.dumps(text)


def _is_literal(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
