"""What a report of Evidently 0.7 measured, out of its document.

Two forms of it are read: that of `Snapshot.dict()` and `.json()`, and that of `Snapshot.dumps()`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from mlops_db.adapters.evidently.conditions import bounds, common, condition
from mlops_db.adapters.evidently.documents import key_text
from mlops_db.adapters.evidently.kinds import DEFAULTS, DRAWING, LEFT_OUT, METRIC_TYPES, SUBJECTS, TOP_K
from mlops_db.adapters.evidently.measured import PASSED, LeftOut, Measured, dataset_measured, finite, measured
from mlops_db.adapters.evidently.names import (
    DEFAULT_DRIFT_SHARE,
    QUALITY,
    TEST,
    Series,
    dataset_drift,
    drift_bounds,
    drift_score,
    is_chosen,
    method_name,
    tells_types,
    told_method,
    words,
)

# A part of a metric: its count or share, its mean or std, a label, a column of its table; () is the whole.
_Part = tuple[str, ...]
_NO_RESULT = LeftOut("metric", "the report names a metric that it has no result of")
_COLUMN_TYPES = {  # what str() makes of the enumeration, as in json.dumps(snapshot.dict(), default=str)
    "ColumnType.Numerical": "num",
    "ColumnType.Categorical": "cat",
    "ColumnType.Text": "text",
    "ColumnType.Datetime": "datetime",
    "ColumnType.Date": "data",
    "ColumnType.Id": "id",
    "ColumnType.Unknown": "unknown",
    "ColumnType.List": "list",
}


def is_snapshot(document: Mapping[str, Any]) -> bool:
    """Whether it is the document of a report of Evidently 0.7, or of `evidently.future` in 0.6."""
    if isinstance(document.get("metric_results"), Mapping):
        return True
    metrics = document.get("metrics")
    return isinstance(metrics, list) and all(
        isinstance(metric, Mapping) and (not metric or _is_config(metric.get("config"))) for metric in metrics
    )


def is_without_parameters(document: Mapping[str, Any]) -> bool:
    """Whether it is the `.dict()` or the `.json()` of a report before Evidently 0.7.16."""
    metrics = document.get("metrics")
    return isinstance(metrics, list) and any(
        isinstance(metric, Mapping) and "metric_id" in metric for metric in metrics
    )


def read_snapshot(document: Mapping[str, Any]) -> Iterator[Measured | LeftOut]:
    """What the report measured, and what of it no value tells."""
    metrics, strays = _dumped(document) if "metric_results" in document else _listed(document)
    for metric in metrics:
        yield from _values(metric, metrics)
        yield from (_verdict(metric, test) for test in metric.tests)
    yield from strays


@dataclass(frozen=True)
class _Metric:
    """A metric of a report: the name of its class, its parameters, the group that it is of, its value and its tests."""

    kind: str
    parameters: Mapping[str, Any]
    group: Mapping[str, Any]
    value: Any
    tests: list[Mapping[str, Any]] = field(default_factory=list)
    metric_id: str | None = None

    @property
    def metric_type(self) -> str:
        return METRIC_TYPES.get(self.kind, QUALITY)

    @property
    def column(self) -> str:
        return str(self.parameters.get("column"))

    @property
    def series(self) -> Series:
        """`quantile_value.age[quantile=0.25]`: the metric, its column, and what tells it from others of its kind."""
        if self.kind == "ValueDrift":
            return drift_score(self.column, self.parameters.get("method")).where(self.group)
        subjects = tuple(str(self.parameters[key]) for key in SUBJECTS if key in self.parameters)
        told = {
            key: value
            for key, value in self._own()
            if key not in SUBJECTS and key not in DRAWING and not (key in DEFAULTS and DEFAULTS[key] == value)
        }
        return Series(words(self.kind), subjects, {**told, **self.group})

    @property
    def drifted(self) -> tuple[Series, Series, Series]:
        verdict, count, share = dataset_drift(dict(self._own()))
        return verdict.where(self.group), count.where(self.group), share.where(self.group)

    def part(self, part: _Part) -> Series:
        """The series of a part of it."""
        if self.kind == "DriftedColumnsCount":
            return self.drifted[2 if part == ("share",) else 1]
        series = self.series
        if part == ("share",) or part[2:] == ("share",):
            share = replace(series, metric=series.metric.replace("_count", "_share"))
            series = share if share != series else series.of("share")
        if part and part[0] in ("label", "column"):
            return series.of(part[1])
        return series.of(*part) if part in (("mean",), ("std",)) else series

    @property
    def details(self) -> dict[str, Any]:
        """The parameters as JSON takes them, under the names that readers know."""
        known = {"column": "feature", "method": "stat_test"}
        details = {known.get(key, key): value for key, value in (*self._own(), *self.group.items())}
        if "stat_test" in details:
            details["stat_test"] = method_name(str(details["stat_test"]))
        return details

    def _own(self) -> Iterator[tuple[str, Any]]:
        for key, value in self.parameters.items():
            if key != "type" and not key.endswith("tests") and value is not None:
                yield key, _COLUMN_TYPES.get(value, value) if key == "column_type" else value


def _metric(config: Mapping[str, Any], value: Any, metric_id: str | None = None) -> _Metric:
    kind, group = _last(config["type"]), {}
    if kind == "GroupByMetric" and _is_config(config.get("metric")):
        group = {"group_by": config.get("column_name"), "group": config.get("label")}
        config = config["metric"]
        kind = _last(config["type"])
    return _Metric(kind, config, group, value, metric_id=metric_id)


def _dumped(document: Mapping[str, Any]) -> tuple[list[_Metric], list[LeftOut]]:
    results = document["metric_results"]
    metrics: list[_Metric] = []
    strays: list[LeftOut] = []
    for metric_id in document.get("top_level_metrics", results):
        result = results.get(metric_id) or {}
        config = ((result.get("metric_value_location") or {}).get("metric") or {}).get("params")
        if _is_config(config):
            metric = _metric(config, _simple(result))
            metrics.append(_resolved(replace(metric, tests=result.get("tests") or [])))
        else:
            strays.append(_NO_RESULT)
    return metrics, strays


def _simple(result: Mapping[str, Any]) -> Any:
    """The value of a result of `Snapshot.dumps()` as `Snapshot.dict()` gives it."""
    if "values" in result:
        return {label: part["value"] for label, part in result["values"].items()}
    if "counts" in result:
        return {"counts": result["counts"], "shares": result["shares"]}
    for parts in (("count", "share"), ("mean", "std")):
        if all(part in result for part in parts):
            return {part: result[part]["value"] for part in parts}
    return result.get("value")


def _listed(document: Mapping[str, Any]) -> tuple[list[_Metric], list[LeftOut]]:
    """The metrics with their tests, and the tests that cannot be told whose they are."""
    metrics = [_metric(entry["config"], entry.get("value"), entry.get("id")) for entry in document["metrics"] if entry]
    # The tests follow each other as the metrics do. Those of drift in a group name the metric, and not the group: they
    # are the group's by their place among the others. No name of a series comes of that place.
    waiting = deque(document.get("tests") or [])
    for metric in metrics:
        while waiting and _is_test_of(waiting[0], metric):
            metric.tests.append(waiting.popleft())
    strays = [_NO_RESULT] * document["metrics"].count({})
    by_id = {metric.metric_id: metric for metric in metrics}
    for test in waiting:
        owner = by_id.get(_tested(test).get("metric_id", ""))
        if owner is None:
            strays.append(LeftOut(str(test.get("name")), "the test does not tell which metric it is of"))
        else:
            owner.tests.append(test)
    return [_resolved(metric) for metric in metrics], strays


def _is_test_of(test: Mapping[str, Any], metric: _Metric) -> bool:
    tested = _tested(test)
    if not _is_of_drift(test):
        return bool(tested.get("metric_id") == metric.metric_id)
    if metric.kind != "ValueDrift" or any(map(_is_of_drift, metric.tests)):
        return False
    return tested.get("metric_id") == metric.metric_id or (
        bool(metric.group) and tested.get("params", {}).get("column") == metric.column
    )


def _resolved(metric: _Metric) -> _Metric:
    """With the drift test that Evidently chose: for a group, only the test of the metric tells it."""
    tests = [test for test in metric.tests if _is_of_drift(test)]
    return replace(metric, parameters={**_tested(tests[0]).get("params", {}), **metric.parameters}) if tests else metric


def _tested(test: Mapping[str, Any]) -> Mapping[str, Any]:
    return test.get("metric_config") or {}


def _is_of_drift(test: Mapping[str, Any]) -> bool:
    return _last((test.get("bound_test") or {}).get("type")) == "ValueDriftBoundTest"


def _values(metric: _Metric, metrics: list[_Metric]) -> Iterator[Measured | LeftOut]:
    value = metric.value
    if metric.kind == "ValueDrift":
        yield _drift(metric)
    elif metric.kind == "DriftedColumnsCount":
        yield from _dataset(metric, [other for other in metrics if _is_counted(other, metric)])
    elif metric.kind in LEFT_OUT:
        yield LeftOut(str(metric.series), LEFT_OUT[metric.kind])
    elif metric.kind in TOP_K and isinstance(value, Mapping):
        yield from _top_k(metric)
    elif isinstance(value, list) or (isinstance(value, Mapping) and not _is_flat(value)):
        yield LeftOut(str(metric.series), "it is a table: nobody can say which of its values a series would be of")
    elif not isinstance(value, Mapping):
        yield _measured(metric, (), value)
    elif not metric.kind.endswith("ByLabel") and value.keys() in ({"count", "share"}, {"mean", "std"}):
        yield from (_measured(metric, (part,), value[part]) for part in value)
    elif value:
        yield from (_measured(metric, ("label", label), value[label], {"label": label}) for label in value)
    else:
        yield LeftOut(str(metric.series), "it holds no value")


def _drift(metric: _Metric) -> Measured | LeftOut:
    method, threshold = metric.parameters.get("method"), finite(metric.parameters.get("threshold"))
    if method is None:
        return LeftOut(
            str(metric.series),
            "the report does not tell which drift test Evidently chose, and a p-value and a distance are not one "
            "series: give ValueDrift a method=",
        )
    lower, upper = drift_bounds(method, threshold)
    row = replace(measured(metric.metric_type, metric.series, metric.value, metric.details), lower=lower, upper=upper)
    if row.value is not None and not lower is upper is None:
        drifted = (lower is not None and row.value < lower) or (upper is not None and row.value > upper)
        row = replace(row, metadata={**row.metadata, "drift_detected": drifted})
    return _within_tests(metric, (), row)


def _is_counted(drift: _Metric, dataset: _Metric) -> bool:
    """Whether it is the drift score of a column that `dataset` counts: of that column, by that drift test."""
    if drift.kind != "ValueDrift" or drift.group != dataset.group:
        return False
    columns = dataset.parameters.get("columns")
    if columns is not None and drift.column not in columns:
        return False
    method, measured_by = told_method(drift.column, dataset.parameters), drift.parameters.get("method")
    if method is None or measured_by is None:
        return measured_by is None or tells_types(dataset.parameters) or is_chosen(measured_by)
    return method_name(method) == method_name(measured_by)


def _dataset(metric: _Metric, counted: list[_Metric]) -> Iterator[Measured]:
    value = metric.value if isinstance(metric.value, Mapping) else {}
    share, drift_share = finite(value.get("share")), finite(metric.parameters.get("drift_share", DEFAULT_DRIFT_SHARE))
    detected = None if share is None or drift_share is None else share >= drift_share
    without_score = {other.column for other in counted} - {
        other.column for other in counted if finite(other.value) is not None
    }
    values = (detected, value.get("count"), value.get("share"))
    rows = dataset_measured(metric.drifted, values, drift_share, metric.details, without_score)
    for part, row in zip(((), ("count",), ("share",)), rows, strict=True):
        yield _within_tests(metric, part, row)


def _top_k(metric: _Metric) -> Iterator[Measured | LeftOut]:
    ranks, k = metric.value.get("value"), metric.parameters.get("k")
    if not isinstance(ranks, Mapping) or not isinstance(k, int):
        yield LeftOut(str(metric.series), "its table has no value for each rank")
        return
    yield _measured(metric, (), ranks.get(str(k - 1)))
    if len(ranks) > 1:
        yield LeftOut(str(metric.series), f"the values at other ranks than {k}: ask for those that you want with k=")


def _measured(metric: _Metric, part: _Part, value: Any, details: Mapping[str, Any] | None = None) -> Measured:
    """A part of the metric."""
    row = measured(metric.metric_type, metric.part(part), value, {**metric.details, **(details or {})})
    return _within_tests(metric, part, row)


def _within_tests(metric: _Metric, part: _Part, row: Measured) -> Measured:
    """The row of a part, normal only where the tests of that part pass, too."""
    tests = [_condition_of(test) for test in metric.tests if _part_of(test) == part and not _is_of_drift(test)]
    lower, upper = common([(row.lower, row.upper), *map(bounds, tests)])
    return replace(row, lower=lower, upper=upper)


def _verdict(metric: _Metric, test: Mapping[str, Any]) -> Measured:
    """What a test of the metric says: 1 passed, 0 failed, None where the test itself failed."""
    if _is_of_drift(test):
        threshold = metric.parameters.get("threshold")  # Evidently 0.7.20 and earlier do not tell the one they chose
        told = {} if threshold is None else {"drift_threshold": threshold}
    else:
        told = condition(_condition_of(test))
    status = str(test.get("status")).rpartition(".")[2]
    value, description = PASSED.get(status), str(test.get("description"))
    metadata = {"status": status, "description": description, **metric.details}
    if value is None:
        metadata["error"] = description
    return Measured(TEST, str(metric.part(_part_of(test)).where(told)), value, metadata)


def _condition_of(test: Mapping[str, Any]) -> Mapping[str, Any]:
    return (test.get("bound_test") or {}).get("test") or test.get("test_config") or {}


def _part_of(test: Mapping[str, Any]) -> _Part:
    bound = test.get("bound_test") or {}
    if "slot" in bound:
        return "label", key_text(bound.get("label")), str(bound["slot"])
    if "label" in bound:
        return "label", key_text(bound["label"])
    if "is_count" in bound:
        return ("count",) if bound["is_count"] else ("share",)
    if "is_mean" in bound:
        return ("mean",) if bound["is_mean"] else ("std",)
    return ("column", str(bound["column"])) if "column" in bound else ()


def _is_flat(value: Mapping[str, Any]) -> bool:
    return not any(isinstance(part, Mapping | list) for part in value.values())


def _is_config(config: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(config, Mapping) and isinstance(config.get("type"), str)


def _last(alias: Any) -> str:
    """The name of the class that `evidently:metric_v2:MeanValue` stands for."""
    return str(alias).rpartition(":")[2]
