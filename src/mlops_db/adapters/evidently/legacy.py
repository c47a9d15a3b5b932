"""Read reports and test suites of Evidently 0.3 to 0.6, and of `evidently.legacy` in 0.7.

A value that 0.7 measures, too, gets its name of 0.7. The name of any other number consists of its metric's class and
column, its path in the result and the parameters: `column_value_range.age.share_in_range[left=0,right=99]`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlops_db.adapters.evidently.documents import HINT
from mlops_db.adapters.evidently.measurement import LeftOut, Measurement, dataset_measurements, finite
from mlops_db.adapters.evidently.names import (
    DRIFT,
    DRIFTED_COUNT,
    DRIFTED_SHARE,
    PERFORMANCE,
    QUALITY,
    Series,
    dataset_drift,
    drift_score,
    method_name,
    without_none,
    words,
)
from mlops_db.errors import AdapterError

_COLUMNS = ("column_name", "text_column_name", "embeddings_name")
# Parameters that distinguish metrics of a kind, and parameters that are only details.
_PARAMETERS = ("quantile", "left", "right", "values", "category", "reg_exp", "k", "normalize_arp", "method_name")
_DETAILS = ("column_type", "top", "top_error", "almost_duplicated_threshold", "target_name", "task")
# The names of 0.7 by the class of the metric and the path in its result.
_NAMES_NOW: Mapping[str, str] = {
    "column_quantile": "quantile_value",
    "dataset_summary.number_of_rows": "row_count",
    **{
        f"classification_quality.{name}": name
        for name in ("accuracy", "precision", "recall", "roc_auc", "log_loss", "tpr", "tnr", "fpr", "fnr")
    },
    "classification_quality.f1": "f1_score",
    "regression_quality.r2_score": "r2_score",
    "regression_quality.rmse": "rmse",
    "regression_quality.abs_error_max": "abs_max_error",
    "regression_quality.mean_error": "mean_error.mean",
    "regression_quality.error_std": "mean_error.std",
    "regression_quality.mean_abs_error": "mae.mean",
    "regression_quality.abs_error_std": "mae.std",
    "regression_quality.mean_abs_perc_error": "mape.mean",
    "regression_quality.abs_perc_error_std": "mape.std",
}
_BY_LABEL = ("precision", "recall", "f1", "roc_auc")
_RANKING = re.compile(
    r"\w+K|Diversity|Novelty|Serendipity|Personalization|PopularityBias|ItemBias|UserBias|ScoreDistribution|RecCasesTable"
)
_OF_REFERENCE = re.compile(r"reference|reference_\w+|ref_\w+|\w+(?<!_by)_ref")
_DATASET = {DRIFTED_COUNT, DRIFTED_SHARE, "dataset_drift"}
_DRIFT = {"stattest_name", "stattest_threshold", "drift_score", "drift_detected"}
_COUNTS = re.compile(
    r"different_missing_values(_by_column)?|table(_of_(not_)?matched)?|counts|values_(not_)?in_list(_dist)?|name_dict"
)
# The parameters of a test that are only in its description. The description also has names between two asterisks.
_DESCRIBED: Mapping[str, re.Pattern[str]] = {
    "quantile": re.compile(r"^The (\d*\.?\d+) quantile value"),
    "category": re.compile(r"category '(.*?)' in the column"),
    "k": re.compile(r"^[\w ]+@(\d+)"),
}


def is_legacy(document: Mapping[str, Any]) -> bool:
    """Whether the document has a shape of Evidently 0.3 to 0.6."""
    if "suite" in document:
        return True
    for items, keys in ((document.get("metrics"), {"metric", "result"}), (document.get("tests"), {"status", "group"})):
        if isinstance(items, list) and items:
            return isinstance(items[0], Mapping) and keys <= items[0].keys()
    return "version" in document and ("metrics" in document or "tests" in document)


def read_legacy(document: Mapping[str, Any]) -> Iterator[Measurement | LeftOut]:
    """Read the `as_dict()`, `json()` or `save_json()` of a report or of a test suite.

    Args:
        document: as `documents.read_document` returns it.

    Raises:
        AdapterError: it is a snapshot, or no report.
    """
    if "suite" in document:
        kind, module = ("Report", "report") if document.get("metrics_ids") else ("TestSuite", "test_suite")
        raise AdapterError(
            "this is a snapshot of Evidently 0.3 to 0.6, which only the version that saved it can read reliably",
            hint=f"With that version, from evidently.{module} import {kind}: "
            f'{kind}.load("snapshot.json").save_json("report.json"), or {kind}._load where there is no load; with 0.7, '
            f"from evidently.legacy.{module}. Then give report.json.",
        )
    metrics = [_metric(item) for item in _items(document, "metrics", "metric")]
    for metric in metrics:
        yield from _read(metric, metrics)
    yield from map(_test, _items(document, "tests", "name"))


def _items(document: Mapping[str, Any], key: str, name: str) -> list[Mapping[str, Any]]:
    items = document.get(key) or []
    if isinstance(items, list) and all(isinstance(each, Mapping) and isinstance(each.get(name), str) for each in items):
        return items
    raise AdapterError(f"the {key} of this document are not those of a report of Evidently", hint=HINT)


@dataclass(frozen=True)
class _Metric:
    """A metric of a report: the name of its class, and its result."""

    kind: str
    result: Mapping[str, Any]

    @property
    def metric_type(self) -> str:
        if "Drift" in self.kind:
            return DRIFT
        is_quality = self.kind.startswith(("Classification", "Regression")) or _RANKING.fullmatch(self.kind)
        return PERFORMANCE if is_quality else QUALITY

    @property
    def column(self) -> str | None:
        return next((str(self.result[key]) for key in _COLUMNS if self.result.get(key) is not None), None)

    def _pick(self, *keys: str) -> dict[str, Any]:
        return {key: self.result.get(key) for key in keys}

    @property
    def details(self) -> dict[str, Any]:
        return without_none({"feature": self.column, **self._pick(*_PARAMETERS, *_DETAILS)})

    @property
    def is_dataset_drift(self) -> bool:
        return self.kind in ("DataDriftTable", "DatasetDrift") and self.has(_DATASET)

    def has(self, keys: Collection[str]) -> bool:
        """Whether the result has a single value under each of the keys."""
        return all(key in self.result and not isinstance(self.result[key], Mapping | list) for key in keys)

    @property
    def counts(self) -> tuple[Any, Any]:
        return self.result.get("number_of_columns"), self.result.get(DRIFTED_COUNT)

    @property
    def without_score(self) -> set[str]:
        drifts = self.result.get("drift_by_columns")
        columns = drifts.items() if isinstance(drifts, Mapping) else ()
        return {
            name for name, drift in columns if isinstance(drift, Mapping) and finite(drift.get("drift_score")) is None
        }

    def series(self, *path: str) -> Series:
        """The series of a value of the result."""
        base = words(re.sub(r"(?<!Top)K$", "", self.kind))
        match (base, *path):
            case "classification_quality_by_class", "metrics", label, statistic if statistic in _BY_LABEL:
                return Series(f"{statistic}_by_label", (label,))
        parameters = without_none(self._pick(*_PARAMETERS))
        column = () if self.column is None else (self.column,)
        now, *part = _NAMES_NOW.get(".".join((base, *path)), "").split(".")
        if now:
            return Series(now, (*column, *part), parameters)
        return Series(_NAMES_NOW.get(base, base), (*column, *path), parameters)


def _metric(item: Mapping[str, Any]) -> _Metric:
    result = item.get("result")
    kind = item["metric"].removesuffix("Metric") or item["metric"]
    return _Metric(kind, result if isinstance(result, Mapping) else {"result": result})


def _read(metric: _Metric, metrics: list[_Metric]) -> Iterator[Measurement | LeftOut]:
    """Read a metric. What it leaves open is in the other metrics of the report."""
    found: list[Measurement | LeftOut] = []
    handled = {*_COLUMNS, *_PARAMETERS, *_DETAILS}
    if metric.column is not None and metric.has(_DRIFT) and isinstance(metric.result["stattest_name"], str):
        found.append(_drift(metric, metric.column))
        handled |= _DRIFT
    if metric.is_dataset_drift:
        found += _dataset(metric, metrics)
        handled |= {*_DATASET, "drift_share", "number_of_columns"}
    for key, value in metric.result.items():
        if _OF_REFERENCE.fullmatch(key):
            if value is not None:
                found.append(LeftOut("reference", "values of the reference data: the rows are of the current data"))
        elif key == "drift_by_columns" and isinstance(value, Mapping):
            for column, drift in value.items():
                result = {**drift, "column_name": column} if isinstance(drift, Mapping) else {column: drift}
                found += _read(_Metric("ColumnDrift", result), metrics)
        elif key not in handled:
            found += _values(metric, _current(key), value)
    yield from found or [LeftOut(str(metric.series()), "it holds no number: a plot, or a list")]


def _values(metric: _Metric, path: tuple[str, ...], value: Any) -> Iterator[Measurement | LeftOut]:
    k = metric.result.get("k")
    if not path and isinstance(value, list) and isinstance(k, int) and "current_value" not in metric.result:
        # Mean reciprocal rank and hit rate only list their values, for each k up to theirs.
        for at_k in value[k - 1 : k] if k > 0 else ():
            yield from _values(metric, path, at_k)
    left_out = str(metric.series(*(path or ("current",))))
    if isinstance(value, Mapping):
        if metric.kind.endswith(("Table", "Plot")) and path != ("fi",):
            yield LeftOut(left_out, "a table")
        elif path and _COUNTS.fullmatch(path[-1]):
            yield LeftOut(left_out, "a count of each value: they would be series without end")
        elif value and not any(map(_holds_numbers, value.values())):
            yield LeftOut(left_out, "a plot, a list or a text, and no number")
        else:
            for key, part in value.items():
                yield from _values(metric, (*path, key) if path or key != "value" else path, part)
    elif path[-1:] == ("most_common",):
        yield LeftOut(left_out, "a value of the column, which measures nothing")
    elif isinstance(value, bool | int | float):
        yield Measurement.of(metric.metric_type, metric.series(*path), value, metric.details)
    else:
        yield LeftOut(left_out, "Evidently gave no value" if value is None else "a list or a text, and no number")


def _drift(metric: _Metric, column: str) -> Measurement:
    result, method = metric.result, metric.result["stattest_name"]
    threshold = finite(result["stattest_threshold"])
    details = {"stat_test": method_name(method), "threshold": threshold, "drift_detected": result["drift_detected"]}
    series = drift_score(column, method)
    return Measurement.of_drift(
        series, result["drift_score"], method, threshold, metric.details | without_none(details)
    )


def _dataset(metric: _Metric, metrics: list[_Metric]) -> Iterator[Measurement | LeftOut]:
    result, share = metric.result, finite(metric.result.get("drift_share"))
    details = {key: result[key] for key in ("drift_share", "number_of_columns") if key in result}
    values = (result["dataset_drift"], result[DRIFTED_COUNT], result[DRIFTED_SHARE])
    failed = {column for other in metrics if other.counts == metric.counts for column in other.without_score}
    detected, *counted = dataset_measurements(dataset_drift({"drift_share": share}), values, share, details, failed)
    if share is None and any(other.kind == "DatasetDrift" for other in metrics):
        # DataDriftPreset passes its drift_share to DatasetDriftMetric, and not to DataDriftTable.
        yield LeftOut(
            "data_drift_table.dataset_drift", "its drift_share is unknown; that of DatasetDriftMetric is known"
        )
    else:
        yield detected
    yield from counted


def _test(item: Mapping[str, Any]) -> Measurement:
    given, description = item.get("parameters"), str(item.get("description") or "")
    given = without_none(given) if isinstance(given, Mapping) else {}
    parts = [str(given[key]) for key in ("column_name", "label") if key in given]
    parts += re.findall(r"\*\*(.+?)\*\*", description)
    parameters: dict[str, Any] = {}
    for key, pattern in _DESCRIBED.items():
        if found := pattern.search(description):
            parameters[key] = found[1] if key == "category" else float(found[1])
    parameters |= {key: given[key] for key in (*_PARAMETERS, "n_sigmas") if key in given}
    if isinstance(given.get("stattest"), str):
        parameters["method"] = method_name(given["stattest"])
    if isinstance(given.get("condition"), Mapping):
        # Only the kind of the condition: its number may come from the reference data, and change with them.
        parameters["condition"] = sorted(given["condition"])
    name = words("_".join(re.findall(r"\w+", item["name"])))
    details = {key: item[key] for key in ("description", "group", "parameters") if item.get(key)}
    return Measurement.of_test(
        Series(name, tuple(dict.fromkeys(parts)), parameters), item, {"test": item["name"], **details}
    )


def _current(key: str) -> tuple[str, ...]:
    key = re.sub(r"^current(_characteristics|_value)?$", "", key).removeprefix("current_")
    return (key,) if key and key != "value" else ()


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_numbers, value.values()))
    return isinstance(value, bool | int | float)
