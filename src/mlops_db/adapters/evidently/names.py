"""Names of series. A name depends only on what was measured, not on its place in the report or on other metrics.

`metric.column.label[parameter=value,...]`, such as `drift_score.age[method=ks]`. A text that holds a character of the
syntax is quoted as in JSON, `drift_score."net.income"[method=ks]`. So is a text that reads like a number. Different
metrics never get the same name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlops_db.schema.limits import MAX_CHARACTERS

DRIFT, PERFORMANCE, QUALITY, TEST = "drift", "performance", "quality", "test"
DATASET_DRIFT = "dataset_drift_detected"
DRIFTED_COUNT, DRIFTED_SHARE = "number_of_drifted_columns", "share_of_drifted_columns"
DRIFT_SCORE = "drift_score"
DEFAULT_DRIFT_SHARE = 0.5

# The value of `method=` for each name that Evidently shows if it chose the drift test itself.
_METHODS: Mapping[str, str] = {
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
_SYNTAX = r"\s.,=\[\]{}\"\\"
_PLAIN = re.compile(rf"[^{_SYNTAX}]+(?: [^{_SYNTAX}]+)*")  # blanks only between words
_DIGITS_OF_DIGEST = 16


@dataclass(frozen=True)
class Series:
    """A series of values; its text is the metric_name.

    Attributes:
        metric: the metric, in words with underscores.
        parts: the column, the label, the statistic.
        parameters: what else distinguishes it from series of the same metric: texts, numbers, booleans, None, and lists
            and mappings of them. The order of a list does not matter.
    """

    metric: str
    parts: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def of(self, *parts: str) -> Series:
        """The series of a part."""
        return replace(self, parts=(*self.parts, *parts))

    def where(self, parameters: Mapping[str, Any]) -> Series:
        """The series with more parameters."""
        return replace(self, parameters={**self.parameters, **parameters})

    def __str__(self) -> str:
        """The metric_name, of any length."""
        parameters = ",".join(f"{_quote(key)}={_render(value)}" for key, value in sorted(self.parameters.items()))
        return ".".join(map(_quote, (self.metric, *self.parts))) + (f"[{parameters}]" if parameters else "")


def words(name: str) -> str:
    """The name of a class in words: `f1_by_label` for F1ByLabel."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def without_none(items: Mapping[str, Any]) -> dict[str, Any]:
    """The items whose value is not None."""
    return {key: value for key, value in items.items() if value is not None}


def method_name(method: str) -> str:
    """The name of a drift test that `method=` takes, from either of the two names that reports show."""
    return _METHODS.get(method, method)


def is_chosen(method: str) -> bool:
    """Whether a report that shows this name of a drift test means that Evidently chose the test itself."""
    return method in _METHODS


def find_method(column: str, parameters: Mapping[str, Any]) -> str | None:
    """The drift test that parameters of DataDriftPreset or DriftedColumnsCount set for a column; None if they set none.

    `num_method`, `cat_method` and `text_method` override `method`, and the parameters do not hold the column's type.
    """
    of_column: str | None = (parameters.get("per_column_method") or {}).get(column)
    return of_column or (None if has_method_by_type(parameters) else parameters.get("method"))


def has_method_by_type(parameters: Mapping[str, Any]) -> bool:
    """Whether the parameters set a drift test for the columns of a type."""
    return any(parameters.get(f"{kind}_method") for kind in ("num", "cat", "text"))


def drift_score(column: str, method: str | None) -> Series:
    """The drift score of a column. The name has the method, as a p-value and a distance are never one series.

    Args:
        column: the column.
        method: the drift test by either of its names; None if it is unknown.
    """
    return Series(DRIFT_SCORE, (column,), {} if method is None else {"method": method_name(method)})


def dataset_drift(parameters: Mapping[str, Any]) -> tuple[Series, Series, Series]:
    """Whether the dataset has drifted, how many of its columns have drifted, and which share of them.

    Args:
        parameters: those of DataDriftPreset and DriftedColumnsCount. The number of drifted columns depends on all of
            them but `drift_share`.
    """
    counted = without_none({key: value for key, value in parameters.items() if key != "drift_share"})
    share = parameters.get("drift_share", DEFAULT_DRIFT_SHARE)
    verdict = counted if share in (None, DEFAULT_DRIFT_SHARE) else {**counted, "drift_share": share}
    return Series(DATASET_DRIFT, (), verdict), Series(DRIFTED_COUNT, (), counted), Series(DRIFTED_SHARE, (), counted)


def shorten(name: str) -> str:
    """The name, if the column can hold it; else its beginning, and a digest of the whole name."""
    most = MAX_CHARACTERS["metric_name"]
    if len(name) <= most:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS_OF_DIGEST]
    return f"{name[: most - _DIGITS_OF_DIGEST - 1]}~{digest}"


def _render(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quote(str(key))}={_render(part)}" for key, part in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(sorted(map(_render, value)))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if _is_literal(value) else _quote(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # 18 and 18.0 are one number, and tools that write JSON change one into the other
    return json.dumps(value)


def _quote(text: str) -> str:
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
