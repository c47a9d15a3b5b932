"""Reports and test suites of Evidently 0.3 to 0.6, and of `evidently.legacy` in 0.7, as what they measured.

What 0.7 measures as well has its name of 0.7. Any other number is called by its metric's class, column and parameters,
and by its path in the result: `column_value_range.age.share_in_range[left=0,right=99]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mlops_db.adapters.evidently.measured import LeftOut, Measured
from mlops_db.adapters.evidently.merging import each_once
from mlops_db.adapters.evidently.names import (
    DATASET_DRIFT,
    DRIFT,
    DRIFTED_COUNT,
    DRIFTED_SHARE,
    PERFORMANCE,
    QUALITY,
    TEST,
    drift_bounds,
    drift_score_name,
    method_name,
    series_name,
)
from mlops_db.adapters.evidently.plain import finite, plain, scalar, text
from mlops_db.errors import AdapterError

_COLUMNS = ("column_name", "text_column_name", "embeddings_name")
# Parameters that tell two metrics of a kind apart, and those that are details of one.
_TELLING = ("quantile", "left", "right", "values", "category", "reg_exp", "k", "normalize_arp", "method_name")
_DETAILS = ("column_type", "top", "top_error", "almost_duplicated_threshold", "target_name", "task")
# The class of a metric and the path in its result, as 0.7 calls what was measured.
_NAMES_NOW: Mapping[str, str] = MappingProxyType(
    {
        "column_quantile": "quantile_value",
        "dataset_summary.number_of_rows": "row_count",
        **{
            f"classification_quality.{name}": name
            for name in ("accuracy", "precision", "recall", "roc_auc", "log_loss")
        },
        **{f"classification_quality.{name}": name for name in ("tpr", "tnr", "fpr", "fnr")},
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
)
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
# A test's parameters that only its description tells, beside names between two asterisks.
_DESCRIBED: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "quantile": re.compile(r"^The (\S+) quantile value"),
        "category": re.compile(r"category '(.*?)' in the column"),
        "k": re.compile(r"^[\w ]+@(\d+)"),
    }
)


def is_legacy(document: Mapping[str, Any]) -> bool:
    """Whether the document has a shape of Evidently 0.3 to 0.6."""
    if "suite" in document:
        return True
    for items, keys in ((document.get("metrics"), {"metric", "result"}), (document.get("tests"), {"status", "group"})):
        if isinstance(items, list | tuple) and items:
            return isinstance(items[0], Mapping) and keys <= items[0].keys()
    return "version" in document


def read_legacy(document: Mapping[str, Any]) -> Iterator[Measured | LeftOut]:
    """What `as_dict()`, `json()` or `save_json()` of a report or of a test suite told.

    Raises:
        AdapterError: it is a snapshot, or no such document.
    """
    if "suite" in document:
        kind, module = ("Report", "report") if document.get("metrics_ids") else ("TestSuite", "test_suite")
        raise AdapterError(
            "this is a snapshot of Evidently 0.3 to 0.6, which only the version that saved it reads with certainty",
            hint=f"With that version, from evidently.{module} import {kind}: "
            f'{kind}.load("snapshot.json").save_json("report.json"), or {kind}._load where there is no load; with 0.7, '
            f"from evidently.legacy.{module}. Then give report.json.",
        )
    metrics = [_Metric(item) for item in _items(document, "metrics", "metric")]
    tests = _items(document, "tests", "name")
    try:
        found = [each for metric in metrics for each in metric.read(metrics)]
        found += [_test(item) for item in tests]
    except RecursionError:
        raise AdapterError(
            "this document is nested too deeply for a report of Evidently",
            hint="Give what as_dict(), json() or save_json() of a Report or of a TestSuite made.",
        ) from None
    yield from each_once(found)


def _items(document: Mapping[str, Any], key: str, name: str) -> list[Mapping[str, Any]]:
    items = document.get(key) or []
    if isinstance(items, list | tuple) and all(
        isinstance(each, Mapping) and isinstance(each.get(name), str) for each in items
    ):
        return list(items)
    raise AdapterError(
        f"the {key} of this document are not those of a report of Evidently",
        hint="Give what as_dict(), json() or save_json() of a Report or of a TestSuite made.",
    )


class _Metric:
    """A metric of a report: the name of its class, its column, its parameters and its result."""

    def __init__(self, item: Mapping[str, Any]) -> None:
        result = item.get("result")
        self.kind = item["metric"].removesuffix("Metric") or "Metric"
        self.result = {text(key): value for key, value in result.items()} if isinstance(result, Mapping) else {}
        self.column = next((text(self.result[key]) for key in _COLUMNS if self.result.get(key) is not None), None)
        told = {key: self.result[key] for key in _TELLING if self.result.get(key) is not None}
        self.parameters = {key: text(value) for key, value in told.items()}
        details = {key: self.result[key] for key in _DETAILS if self.result.get(key) is not None}
        self.details = {**({} if self.column is None else {"feature": self.column}), **plain({**told, **details})}

    @property
    def metric_type(self) -> str:
        if "Drift" in self.kind:
            return DRIFT
        is_quality = self.kind.startswith(("Classification", "Regression")) or _RANKING.fullmatch(self.kind)
        return PERFORMANCE if is_quality else QUALITY

    def name(self, *path: str) -> str:
        base = _snake(re.sub(r"(?<!Top)K$", "", self.kind))
        column = () if self.column is None else (self.column,)
        match (base, *path):
            case "classification_quality_by_class", "metrics", label, statistic if statistic in _BY_LABEL:
                return series_name(f"{statistic}_by_label", label)
        now, *part = _NAMES_NOW.get(".".join((base, *path)), "").split(".")
        if now:
            return series_name(now, *part, *column, parameters=self.parameters)
        return series_name(_NAMES_NOW.get(base, base), *column, *path, parameters=self.parameters)

    def read(self, metrics: list[_Metric]) -> Iterator[Measured | LeftOut]:
        """What it measured. The other metrics of the report tell what this one leaves open."""
        found: list[Measured | LeftOut] = []
        handled = {*_COLUMNS, *_TELLING, *_DETAILS}
        if self.column is not None and self.result.keys() >= _DRIFT and isinstance(self.result["stattest_name"], str):
            found.append(_drift_score(self.column, self.result))
            handled |= _DRIFT
        if self.kind in ("DataDriftTable", "DatasetDrift") and self.result.keys() >= _DATASET:
            found += self._dataset_drift(metrics)
            handled |= {*_DATASET, "drift_share", "number_of_columns"}
        for key, value in self.result.items():
            if _OF_REFERENCE.fullmatch(key):
                if value is not None:
                    found.append(LeftOut("reference", "values of the reference data: the rows are of the current data"))
            elif key == "drift_by_columns" and isinstance(value, Mapping):
                for column, drift in value.items():
                    result = {**drift, "column_name": text(column)} if isinstance(drift, Mapping) else {"drift": drift}
                    found += _Metric({"metric": "ColumnDriftMetric", "result": result}).read(metrics)
            elif key not in handled:
                found += self._values(_current(key), value)
        yield from found or [LeftOut(self.name(), "it holds no number: a plot, or a list")]

    def _values(self, path: tuple[str, ...], value: object) -> Iterator[Measured | LeftOut]:
        value, k = scalar(value), self.result.get("k")
        if not path and isinstance(value, list) and isinstance(k, int) and "current_value" not in self.result:
            # Mean reciprocal rank and hit rate tell only the list of their values, for each k up to theirs.
            for at_k in value[k - 1 : k] if k > 0 else ():
                yield from self._values(path, at_k)
        left_out = self.name(*(path or ("current",)))
        if isinstance(value, Mapping):
            if self.kind.endswith(("Table", "Plot")) and path != ("fi",):
                yield LeftOut(left_out, "a table")
            elif path and _COUNTS.fullmatch(path[-1]):
                yield LeftOut(left_out, "a count of each value: they would be series without end")
            elif value and not any(map(_holds_numbers, value.values())):
                yield LeftOut(left_out, "a plot, a list or a text, and no number")
            else:
                for key, part in value.items():
                    yield from self._values((*path, text(key)) if path or key != "value" else path, part)
        elif isinstance(value, bool | int | float):
            yield _measured(self.metric_type, self.name(*path), value, self.details)
        else:
            yield LeftOut(left_out, "Evidently gave no value" if value is None else "a list or a text, and no number")

    def _dataset_drift(self, metrics: list[_Metric]) -> Iterator[Measured | LeftOut]:
        result, share = self.result, finite(self.result.get("drift_share"))
        values = {DRIFTED_COUNT: result[DRIFTED_COUNT], DRIFTED_SHARE: result[DRIFTED_SHARE]}
        details = plain({key: result[key] for key in ("drift_share", "number_of_columns") if key in result})
        failed = [column for metric in metrics if metric.counts == self.counts for column in metric.without_score]
        detected = result["dataset_drift"]
        if failed:
            # Evidently counts a column whose score is NaN as one that has not drifted.
            details["error"] = f"no drift score of {', '.join(sorted(set(failed)))}"
            details["at_least"] = plain({"count": values[DRIFTED_COUNT], "share": values[DRIFTED_SHARE]})
            values, detected = dict.fromkeys(values), detected or None
        if share is None and any(metric.kind == "DatasetDrift" for metric in metrics):
            # DataDriftPreset hands its drift_share to the one metric and not to the other.
            yield LeftOut(
                "data_drift_table.dataset_drift", "by a drift_share that is not told; DatasetDriftMetric tells it"
            )
        else:
            yield replace(_measured(DRIFT, DATASET_DRIFT, detected, details), upper=0.0)
        for name, value in values.items():
            bound = math.nextafter(share, -math.inf) if share is not None and name == DRIFTED_SHARE else None
            yield replace(_measured(DRIFT, name, value, details), upper=bound)

    @property
    def counts(self) -> tuple[Any, ...]:
        return tuple(self.result.get(key) for key in ("number_of_columns", DRIFTED_COUNT))

    @property
    def without_score(self) -> list[str]:
        columns = self.result.get("drift_by_columns")
        each = columns.items() if isinstance(columns, Mapping) else ()
        return [
            text(name)
            for name, drift in each
            if isinstance(drift, Mapping) and finite(drift.get("drift_score")) is None
        ]


def _drift_score(column: str, drift: Mapping[str, Any]) -> Measured:
    method, detected = drift["stattest_name"], scalar(drift.get("drift_detected"))
    threshold = finite(drift.get("stattest_threshold"))
    told = {"feature": column, "column_type": drift.get("column_type"), "stat_test": method, "threshold": threshold}
    details = {key: plain(value) for key, value in {**told, "drift_detected": detected}.items() if value is not None}
    row = _measured(DRIFT, drift_score_name(column, method), drift.get("drift_score"), details)
    lower, upper = (None, None) if threshold is None else drift_bounds(method, threshold)
    if row.value is not None and isinstance(detected, bool):
        drifted = (lower is not None and row.value < lower) or (upper is not None and row.value > upper)
        if drifted != detected:  # a test of the user's own: a distance where p-values are taken for granted
            lower = upper = None
    return Measured(row.metric_type, row.metric_name, row.value, row.metadata, lower, upper)


def _test(item: Mapping[str, Any]) -> Measured:
    given = item.get("parameters")
    parameters = {text(key): value for key, value in given.items()} if isinstance(given, Mapping) else {}
    words = item.get("description")
    description = words if isinstance(words, str) else ""
    parts = [text(parameters[key]) for key in ("column_name", "label") if parameters.get(key) is not None]
    parts = list(dict.fromkeys(parts + re.findall(r"\*\*(.+?)\*\*", description)))
    told = {key: found[1] for key, pattern in _DESCRIBED.items() if (found := pattern.search(description))}
    told |= {key: text(parameters[key]) for key in (*_TELLING, "n_sigmas") if parameters.get(key) is not None}
    if isinstance(parameters.get("stattest"), str):
        told["method"] = method_name(parameters["stattest"])
    condition = parameters.pop("condition", None)
    if isinstance(condition, Mapping):
        told["condition"] = " and ".join(sorted(map(text, condition)))  # its number may be the reference's, and move
    name = series_name(_snake(re.sub(r"\W+", " ", item["name"]).strip().replace(" ", "_")), *parts, parameters=told)
    status = text(item.get("status")).rpartition(".")[2].upper()
    held = {**item, "parameters": parameters or given}
    details = {key: held[key] for key in ("description", "group", "parameters") if held.get(key)}
    details |= {"condition": condition} if condition is not None else {}
    value = {"SUCCESS": 1.0, "FAIL": 0.0, "WARNING": 0.0}.get(status)
    error = {} if value is not None else {"error": description or f"the test's status is {status}"}
    return Measured(TEST, name, value, plain({"test": item["name"], "status": status, **details, **error}), lower=1.0)


def _measured(metric_type: str, name: str, value: object, details: Mapping[str, Any]) -> Measured:
    number = finite(value)
    if number is None and "error" not in details:
        details = {**details, "error": f"Evidently computed {text(value)[:100]}"}
    return Measured(metric_type, name, number, dict(details))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _current(key: str) -> tuple[str, ...]:
    key = re.sub(r"^current(_characteristics|_value)?$", "", key).removeprefix("current_")
    return (key,) if key and key != "value" else ()


def _holds_numbers(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_numbers, value.values()))
    return isinstance(scalar(value), bool | int | float)
