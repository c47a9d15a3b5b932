"""Read reports of Evidently 0.7: the form of `Snapshot.dict()` and `.json()`, and that of `Snapshot.dumps()`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from mlops_db.adapters.evidently.conditions import condition, intersect, passing_interval
from mlops_db.adapters.evidently.documents import key_text
from mlops_db.adapters.evidently.kinds import DEFAULTS, DRAWING, LEFT_OUT, METRIC_TYPES, SUBJECTS, TOP_K
from mlops_db.adapters.evidently.measurement import LeftOut, Measurement, dataset_measurements, finite
from mlops_db.adapters.evidently.names import (
    DEFAULT_DRIFT_SHARE,
    QUALITY,
    Series,
    dataset_drift,
    drift_score,
    find_method,
    has_method_by_type,
    is_chosen,
    method_name,
    without_none,
    words,
)

# A part of a metric: its count or share, its mean or std, a label, a column of its table; () is the whole metric.
_Part = tuple[str, ...]
_NO_RESULT = LeftOut("metric", "the report names a metric that it has no result of")
# The values of ColumnType by name: json.dumps(snapshot.dict(), default=str) writes ColumnType.Numerical instead of num.
# The value of every other type is its name in lower case.
_COLUMN_TYPES = {"Numerical": "num", "Categorical": "cat", "Date": "data"}


def is_snapshot(document: Mapping[str, Any]) -> bool:
    """Whether the document is a report of Evidently 0.7, or of `evidently.future` in 0.6."""
    if isinstance(document.get("metric_results"), Mapping):
        return True
    metrics = document.get("metrics")
    return isinstance(metrics, list) and all(
        isinstance(metric, Mapping) and (not metric or _is_config(metric.get("config"))) for metric in metrics
    )


def is_without_parameters(document: Mapping[str, Any]) -> bool:
    """Whether the document is the `.dict()` or the `.json()` of a report before Evidently 0.7.16."""
    metrics = document.get("metrics")
    return isinstance(metrics, list) and any(
        isinstance(metric, Mapping) and "metric_id" in metric for metric in metrics
    )


def read_snapshot(document: Mapping[str, Any]) -> Iterator[Measurement | LeftOut]:
    """Read the values of the report, and the parts that have no row."""
    metrics, strays = _read_dumps(document) if "metric_results" in document else _read_dict(document)
    for metric in metrics:
        yield from _values(metric, metrics)
        yield from (_test(metric, test) for test in metric.tests)
    yield from strays


@dataclass(frozen=True)
class _Metric:
    """A metric of a report: the name of its class, its parameters, its group if any, its value and its tests."""

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
        """`quantile_value.age[quantile=0.25]`: the metric, its column, and the parameters that are not defaults."""
        if self.kind == "ValueDrift":
            return drift_score(self.column, self.parameters.get("method")).where(self.group)
        subjects = tuple(str(self.parameters[key]) for key in SUBJECTS if key in self.parameters)
        parameters = {
            key: value
            for key, value in self._own.items()
            if key not in SUBJECTS and key not in DRAWING and not (key in DEFAULTS and DEFAULTS[key] == value)
        }
        return Series(words(self.kind), subjects, {**parameters, **self.group})

    @property
    def drifted(self) -> tuple[Series, Series, Series]:
        detected, count, share = dataset_drift(self._own)
        return detected.where(self.group), count.where(self.group), share.where(self.group)

    def part(self, part: _Part) -> Series:
        """The series of a part of the metric."""
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
        """The parameters, under the names that jobs use in metadata: feature and stat_test."""
        known = {"column": "feature", "method": "stat_test"}
        details = {known.get(key, key): value for key, value in {**self._own, **self.group}.items()}
        if "stat_test" in details:
            details["stat_test"] = method_name(str(details["stat_test"]))
        return details

    @property
    def _own(self) -> dict[str, Any]:
        own = without_none(
            {key: value for key, value in self.parameters.items() if key != "type" and not key.endswith("tests")}
        )
        prefix, is_enumeration, name = str(own.get("column_type")).partition("ColumnType.")
        if is_enumeration and not prefix:
            own["column_type"] = _COLUMN_TYPES.get(name, name.lower())
        return own


def _metric(config: Mapping[str, Any], value: Any, metric_id: str | None = None) -> _Metric:
    kind, group = _last(config["type"]), {}
    if kind == "GroupByMetric" and _is_config(config.get("metric")):
        group = {"group_by": config.get("column_name"), "group": config.get("label")}
        config = config["metric"]
        kind = _last(config["type"])
    return _Metric(kind, config, group, value, metric_id=metric_id)


def _read_dumps(document: Mapping[str, Any]) -> tuple[list[_Metric], list[LeftOut]]:
    results = document["metric_results"]
    metrics: list[_Metric] = []
    strays: list[LeftOut] = []
    for metric_id in document.get("top_level_metrics", results):
        result = results.get(metric_id) or {}
        config = ((result.get("metric_value_location") or {}).get("metric") or {}).get("params")
        if _is_config(config):
            metric = _metric(config, _simple(result))
            metrics.append(_with_chosen_method(replace(metric, tests=result.get("tests") or [])))
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


def _read_dict(document: Mapping[str, Any]) -> tuple[list[_Metric], list[LeftOut]]:
    """The metrics with their tests, and the tests that name no metric of the report."""
    metrics = [_metric(entry["config"], entry.get("value"), entry.get("id")) for entry in document["metrics"] if entry]
    # The tests are in the order of the metrics. A test of drift in a group names the metric, but not the group, so its
    # place decides. That place does not get into any name of a series.
    waiting = deque(document.get("tests") or [])
    for metric in metrics:
        while waiting and _is_test_of(waiting[0], metric):
            metric.tests.append(waiting.popleft())
    strays = [_NO_RESULT] * document["metrics"].count({})
    by_id = {metric.metric_id: metric for metric in metrics}
    for test in waiting:
        owner = by_id.get(_tested(test).get("metric_id", ""))
        if owner is None:
            strays.append(LeftOut(str(test.get("name")), "the test does not name its metric"))
        else:
            owner.tests.append(test)
    return [_with_chosen_method(metric) for metric in metrics], strays


def _is_test_of(test: Mapping[str, Any], metric: _Metric) -> bool:
    tested = _tested(test)
    if not _is_of_drift(test):
        return bool(tested.get("metric_id") == metric.metric_id)
    if metric.kind != "ValueDrift" or any(map(_is_of_drift, metric.tests)):
        return False
    return tested.get("metric_id") == metric.metric_id or (
        bool(metric.group) and tested.get("params", {}).get("column") == metric.column
    )


def _with_chosen_method(metric: _Metric) -> _Metric:
    """Add the drift test that Evidently chose. In a group, only the metric's test holds it."""
    chosen: Mapping[str, Any] = next(
        (_tested(test).get("params", {}) for test in metric.tests if _is_of_drift(test)), {}
    )
    return replace(metric, parameters={**chosen, **metric.parameters})


def _tested(test: Mapping[str, Any]) -> Mapping[str, Any]:
    return test.get("metric_config") or {}


def _is_of_drift(test: Mapping[str, Any]) -> bool:
    return _last((test.get("bound_test") or {}).get("type")) == "ValueDriftBoundTest"


def _values(metric: _Metric, metrics: list[_Metric]) -> Iterator[Measurement | LeftOut]:
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
        yield LeftOut(str(metric.series), "it is a table, so no single value is the series")
    elif not isinstance(value, Mapping):
        yield _part(metric, (), value)
    elif not metric.kind.endswith("ByLabel") and value.keys() in ({"count", "share"}, {"mean", "std"}):
        yield from (_part(metric, (part,), value[part]) for part in value)
    elif value:
        yield from (_part(metric, ("label", label), value[label], {"label": label}) for label in value)
    else:
        yield LeftOut(str(metric.series), "it holds no value")


def _drift(metric: _Metric) -> Measurement | LeftOut:
    method, threshold = metric.parameters.get("method"), finite(metric.parameters.get("threshold"))
    if method is None:
        return LeftOut(
            str(metric.series),
            "the report does not hold the drift test that Evidently chose, and a p-value and a distance are not one "
            "series: give ValueDrift a method=",
        )
    row = Measurement.of_drift(metric.series, metric.value, method, threshold, metric.details)
    if row.value is not None and not row.lower is row.upper is None:
        drifted = (row.lower is not None and row.value < row.lower) or (row.upper is not None and row.value > row.upper)
        row = replace(row, metadata={**row.metadata, "drift_detected": drifted})
    return _narrow(metric, (), row)


def _is_counted(drift: _Metric, dataset: _Metric) -> bool:
    """Whether `dataset` counts this drift score: its column, measured by its drift test."""
    if drift.kind != "ValueDrift" or drift.group != dataset.group:
        return False
    columns = dataset.parameters.get("columns")
    if columns is not None and drift.column not in columns:
        return False
    method, measured_by = find_method(drift.column, dataset.parameters), drift.parameters.get("method")
    if method is None or measured_by is None:
        return measured_by is None or has_method_by_type(dataset.parameters) or is_chosen(measured_by)
    return method_name(method) == method_name(measured_by)


def _dataset(metric: _Metric, counted: list[_Metric]) -> Iterator[Measurement]:
    value = metric.value if isinstance(metric.value, Mapping) else {}
    share, drift_share = finite(value.get("share")), finite(metric.parameters.get("drift_share", DEFAULT_DRIFT_SHARE))
    detected = None if share is None or drift_share is None else share >= drift_share
    without_score = {other.column for other in counted} - {
        other.column for other in counted if finite(other.value) is not None
    }
    values = (detected, value.get("count"), value.get("share"))
    rows = dataset_measurements(metric.drifted, values, drift_share, metric.details, without_score)
    for part, row in zip(((), ("count",), ("share",)), rows, strict=True):
        yield _narrow(metric, part, row)


def _top_k(metric: _Metric) -> Iterator[Measurement | LeftOut]:
    ranks, k = metric.value.get("value"), metric.parameters.get("k")
    if not isinstance(ranks, Mapping) or not isinstance(k, int):
        yield LeftOut(str(metric.series), "its table has no value for each rank")
        return
    yield _part(metric, (), ranks.get(str(k - 1)))
    if len(ranks) > 1:
        yield LeftOut(str(metric.series), f"the values at other ranks than {k}: ask for those that you want with k=")


def _part(metric: _Metric, part: _Part, value: Any, details: Mapping[str, Any] | None = None) -> Measurement:
    row = Measurement.of(metric.metric_type, metric.part(part), value, {**metric.details, **(details or {})})
    return _narrow(metric, part, row)


def _narrow(metric: _Metric, part: _Part, row: Measurement) -> Measurement:
    """Narrow the interval of normal values to those with which the tests of the part pass."""
    tests = [_condition_of(test) for test in metric.tests if _part_of(test) == part and not _is_of_drift(test)]
    lower, upper = intersect([(row.lower, row.upper), *map(passing_interval, tests)])
    return replace(row, lower=lower, upper=upper)


def _test(metric: _Metric, test: Mapping[str, Any]) -> Measurement:
    if _is_of_drift(test):
        threshold = metric.parameters.get("threshold")  # Evidently 0.7.20 and earlier leave out the one they chose
        parameters = {} if threshold is None else {"drift_threshold": threshold}
    else:
        parameters = condition(_condition_of(test))
    series = metric.part(_part_of(test)).where(parameters)
    return Measurement.of_test(series, test, {"description": str(test.get("description")), **metric.details})


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
