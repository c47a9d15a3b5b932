"""Evidently's reports, 0.7.21 and later, as what they measured."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.evidently.measured import Measured
from mlops_db.adapters.evidently.names import (
    DATASET_DRIFT,
    DRIFT,
    DRIFT_SCORE,
    DRIFTED_COUNT,
    DRIFTED_SHARE,
    PERFORMANCE,
    QUALITY,
)
from mlops_db.errors import AdapterError, MissingExtraError

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

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


def read_snapshot(snapshot: Snapshot) -> Iterator[Measured]:
    """What the report measured.

    Raises:
        AdapterError: it is no such snapshot.
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
    yield from _drift_rows([each for each in metrics if each.kind in ("ValueDrift", "DriftedColumnsCount")])
    for metric in metrics:
        if metric.kind not in ("ValueDrift", "DriftedColumnsCount"):
            module = modules.get(metric.kind, "")
            yield from _plain_rows(metric, PERFORMANCE if module in _PERFORMANCE_MODULES else QUALITY)


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


def _drift_rows(metrics: list[_Metric]) -> Iterator[Measured]:
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


def _dataset_rows(metric: _Metric, failed: list[str | None]) -> Iterator[Measured]:
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


def _plain_rows(metric: _Metric, metric_type: str) -> Iterator[Measured]:
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


def _measured(metric_type: str, name: str, value: Any, metadata: Mapping[str, Any]) -> Measured:
    if value is None or math.isfinite(value):
        return Measured(metric_type, name, None if value is None else float(value), dict(metadata))
    return Measured(metric_type, name, None, {**metadata, "error": f"Evidently computed {value}"})


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
