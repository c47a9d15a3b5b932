"""Evidently's reports (0.7.21 and later) as rows of monitoring_metrics, for `db.monitoring.log_many`.

| metric_type | metric_name | value |
|-|-|-|
| drift | dataset_drift_detected | 1 if the share of drifted columns reaches the report's drift_share, else 0 |
| drift | number_of_drifted_columns, share_of_drifted_columns | counted; 0 to 1 |
| drift | drift_score.age | the score of the feature age: a p-value or a distance, as metadata.stat_test says |
| performance | accuracy, roc_auc, mae, f1_by_label.yes | of classification, regression and ranking |
| quality | row_count, missing_value_share.age, quantile_value.age[quantile=0.25] | everything else |

A value that could not be computed is None with the reason in metadata.error: a failed row, never "no drift". Tables
(correlations) and counts of each value of a column are left out: they would be series without end.
"""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops_db.errors import AdapterError, MissingExtraError
from mlops_db.storage.metric_rows import MAX_CHARACTERS
from mlops_db.storage.monitoring import failure_reason
from mlops_db.storage.values import DEFAULT_MODEL

if TYPE_CHECKING:
    from datetime import datetime

    from evidently.core.report import Snapshot

DRIFT, PERFORMANCE, QUALITY = "drift", "performance", "quality"
DATASET_DRIFT = "dataset_drift_detected"
DRIFTED_COUNT, DRIFTED_SHARE = "number_of_drifted_columns", "share_of_drifted_columns"
DRIFT_SCORE = "drift_score"

# A report holds a score, a test and a threshold, and not what they amount to. By the name that `method=` takes, and by
# the one that Evidently shows when it chose the test itself. Every other test of Evidently's is a p-value.
_DRIFTED_IF: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        **dict.fromkeys(("ed", "Energy-distance"), operator.gt),
        **dict.fromkeys(("perc_text_content_drift", "Percentile text content drift"), operator.gt),
        **dict.fromkeys(("abs_text_content_drift", "Absolute text content drift"), operator.gt),
        **dict.fromkeys(("hellinger", "Hellinger distance"), operator.ge),
        **dict.fromkeys(("jensenshannon", "Jensen-Shannon distance"), operator.ge),
        **dict.fromkeys(("kl_div", "Kullback-Leibler divergence"), operator.ge),
        **dict.fromkeys(("psi", "PSI"), operator.ge),
        **dict.fromkeys(("wasserstein", "Wasserstein distance (normed)"), operator.ge),
        **dict.fromkeys(("ks", "K-S p_value"), operator.le),
        **dict.fromkeys(("cramer_von_mises", "Cramer-von Mises"), operator.le),
    }
)
# Where Evidently's metrics live tells what they measure.
_PERFORMANCE_MODULES = ("classification", "regression", "recsys")
# How a metric is computed or drawn is detail; what is left tells two series apart.
_DETAILS = frozenset(
    {
        "type", "column", "method", "threshold", "drift_share", "nbinsx", "conf_matrix", "pr_curve", "pr_table",
        "roc_curve", "probas_threshold", "error_plot", "error_distr", "error_normality",
    }
)  # fmt: skip
_DEFAULTS = frozenset({("classification_name", "default"), ("regression_name", "default")})


@dataclass(frozen=True)
class _Row:
    metric_type: str
    metric_name: str
    value: float | None
    metadata: dict[str, Any] = field(default_factory=dict)


def report_rows(
    snapshot: Snapshot, *, model_name: str = DEFAULT_MODEL, timestamp: datetime | None = None
) -> list[dict[str, Any]]:
    """What a report measured, as rows for `db.monitoring.log_many`.

    Args:
        snapshot: what `Report(...).run(current, reference)` returns, or `Snapshot.load(path)`.
        model_name: the model that was measured.
        timestamp: the moment that the values are about, aware; left out, `log_many` gives them its `replace=`, or the
            time of the call.

    Raises:
        AdapterError: it is no such snapshot, or a feature's name is too long to be part of a metric_name.
        MissingExtraError: Evidently is not installed.
    """
    modules = _metric_modules()
    measured = snapshot.dict()["metrics"] if hasattr(snapshot, "metric_results") else [{}]
    if not all("config" in metric for metric in measured):
        raise AdapterError(
            f"this {type(snapshot).__name__} is not what a report of Evidently 0.7.21 or later measured",
            hint="Give what Report(...).run(current, reference) returns.",
        )
    metrics = [_read(metric) for metric in measured]
    rows = list(_drift_rows([each for each in metrics if each.kind in ("ValueDrift", "DriftedColumnsCount")]))
    for metric in metrics:
        if metric.kind not in ("ValueDrift", "DriftedColumnsCount"):
            module = modules.get(metric.kind, "")
            rows += _plain_rows(metric, PERFORMANCE if module in _PERFORMANCE_MODULES else QUALITY)
    return _mappings(rows, model_name, timestamp)


def failed_report_rows(
    error: BaseException | str,
    *,
    features: Collection[str] = (),
    model_name: str = DEFAULT_MODEL,
    timestamp: datetime | None = None,
) -> list[dict[str, Any]]:
    """The drift of a report that could not be computed, as failed rows, for `db.monitoring.log_many`.

    One feature without values makes Evidently give up the whole report; what is not stored then would look as if
    nobody had measured, or as if nothing had drifted.

    Args:
        error: what `Report.run` raised.
        features: the features whose drift scores are missing with it.
        model_name: as with `report_rows`.
        timestamp: as with `report_rows`.

    Raises:
        AdapterError: a feature's name is too long to be part of a metric_name.
    """
    reason = {"error": failure_reason(error)}
    names = (DATASET_DRIFT, DRIFTED_COUNT, DRIFTED_SHARE)
    rows = [_Row(DRIFT, name, None, reason) for name in names]
    rows += [_Row(DRIFT, f"{DRIFT_SCORE}.{name}", None, {"feature": name, **reason}) for name in features]
    return _mappings(rows, model_name, timestamp)


@dataclass(frozen=True)
class _Metric:
    """A metric of a report: the name of its class, its parameters, and what it measured, as Evidently gives it."""

    kind: str
    parameters: Mapping[str, Any]
    value: Any

    @property
    def column(self) -> str | None:
        return self.parameters.get("column")

    @property
    def name(self) -> str:
        """`quantile_value.age[quantile=0.25]`: the metric, its column, and what tells it from others of its kind."""
        base = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.kind).lower()
        return base + (f".{self.column}" if self.column else "") + self.suffix

    @property
    def suffix(self) -> str:
        told = [
            f"{key}={value}"
            for key, value in sorted(self.parameters.items())
            if isinstance(value, str | int | float) and key not in _DETAILS and (key, value) not in _DEFAULTS
        ]
        return f"[{','.join(told)}]" if told else ""

    @property
    def details(self) -> dict[str, Any]:
        """The parameters as JSON takes them, under the names that readers know."""
        return {
            {"column": "feature", "method": "stat_test"}.get(key, key): value
            for key, value in self.parameters.items()
            if key != "type" and not key.endswith("tests") and value is not None and _is_json(value)
        }


def _read(metric: Mapping[str, Any]) -> _Metric:
    config = metric["config"]
    return _Metric(config["type"].rpartition(":")[2], config, metric["value"])


def _drift_rows(metrics: list[_Metric]) -> Iterator[_Row]:
    failed = []
    for metric in metrics:
        if metric.kind == "ValueDrift":
            row = _measured(DRIFT, f"{DRIFT_SCORE}.{metric.column}", metric.value, metric.details)
            if row.value is None:
                failed.append(metric.column)
                yield row
                continue
            drifted_if: Callable[[Any, Any], Any] = _DRIFTED_IF.get(str(metric.parameters["method"]), operator.lt)
            drifted = bool(drifted_if(row.value, metric.parameters["threshold"]))
            yield replace(row, metadata={**row.metadata, "drift_detected": drifted})
    for metric in metrics:
        if metric.kind == "DriftedColumnsCount":
            yield from _dataset_rows(metric, failed)


def _dataset_rows(metric: _Metric, failed: list[str | None]) -> Iterator[_Row]:
    count, share = metric.value["count"], metric.value["share"]
    detected = share >= metric.parameters["drift_share"]
    details = metric.details
    if failed:
        # Evidently counts a feature whose score is NaN as one that has not drifted.
        details["error"] = f"no drift score of {', '.join(map(str, failed))}"
        details["at_least"] = {"count": count, "share": share}
        count = share = None
        detected = detected or None
    yield _measured(DRIFT, DATASET_DRIFT, detected, details)
    yield _measured(DRIFT, DRIFTED_COUNT, count, details)
    yield _measured(DRIFT, DRIFTED_SHARE, share, details)


def _plain_rows(metric: _Metric, metric_type: str) -> Iterator[_Row]:
    value, details = metric.value, metric.details
    if not isinstance(value, Mapping):
        yield _measured(metric_type, metric.name, value, details)
    elif value.keys() == {"count", "share"}:
        yield _measured(metric_type, metric.name, value["count"], details)
        yield _measured(metric_type, metric.name.replace("_count", "_share", 1), value["share"], details)
    elif value.keys() == {"mean", "std"}:
        for key in value:
            yield _measured(metric_type, f"{metric.name}.{key}", value[key], details)
    elif not any(isinstance(part, Mapping) for part in value.values()):
        for label, part in value.items():
            yield _measured(metric_type, f"{metric.name}.{label}", part, {**details, "label": str(label)})


def _measured(metric_type: str, name: str, value: Any, metadata: Mapping[str, Any]) -> _Row:
    if value is None or math.isfinite(value):
        return _Row(metric_type, name, None if value is None else float(value), dict(metadata))
    return _Row(metric_type, name, None, {**metadata, "error": f"Evidently computed {value}"})


def _mappings(rows: list[_Row], model_name: str, timestamp: datetime | None) -> list[dict[str, Any]]:
    seen: Counter[tuple[str, str]] = Counter()
    common = {"model_name": model_name} | ({} if timestamp is None else {"timestamp": timestamp})
    mappings = []
    for row in rows:
        # A report can hold a metric twice, with parameters that the name does not tell: two values, two series.
        seen[row.metric_type, row.metric_name] += 1
        times = seen[row.metric_type, row.metric_name]
        name = row.metric_name if times == 1 else f"{row.metric_name}#{times}"
        if len(name) > MAX_CHARACTERS["metric_name"]:
            raise AdapterError(
                f"metric_name {name[:60]!r}... would be {len(name)} characters long",
                hint=f"Rename the column: {MAX_CHARACTERS['metric_name']} characters are the most.",
            )
        mappings.append(
            {
                "metric_type": row.metric_type,
                "metric_name": name,
                "metric_value": row.value,
                "metadata": row.metadata or None,
                **common,
            }
        )
    return mappings


def _metric_modules() -> Mapping[str, str]:
    """The module, such as `classification`, that each of Evidently's metrics lives in."""
    try:
        from evidently import metrics  # noqa: PLC0415  (optional, and seconds to import)
    except ModuleNotFoundError:
        raise MissingExtraError(
            "Evidently is not installed, which its reports need", hint="pip install 'mlops-db[evidently]'"
        ) from None
    return {name: each.__module__.rpartition(".")[2] for name, each in vars(metrics).items() if isinstance(each, type)}


def _is_json(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_json(part) for part in value)
    return isinstance(value, str | bool) or (isinstance(value, int | float) and math.isfinite(value))
