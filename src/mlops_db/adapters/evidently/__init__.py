"""Convert Evidently's reports, of 0.3 to 0.7, to rows of monitoring_metrics for `db.monitoring.log_many`.

| metric_type | metric_name | value |
|-|-|-|
| drift | dataset_drift_detected | 1 if the share of drifted columns reaches the report's drift_share, else 0 |
| drift | number_of_drifted_columns, share_of_drifted_columns | counted; 0 to 1 |
| drift | drift_score.age[method=ks] | the score of the column age by that drift test: a p-value or a distance |
| performance | accuracy, roc_auc, mae.mean, f1_by_label.yes, ndcg[k=3] | of classification, regression and ranking |
| quality | row_count, missing_value_share.age, quantile_value.age[quantile=0.25] | everything else |
| test | missing_value_share.age[lte=0.1] | 1 if the test passed, 0 if it failed |

A name is `metric.column.label[parameter=value,...]` and depends only on what was measured. Defaults, such as
`drift_share=0.5`, are left out. Texts that hold a character of the syntax, and texts of parameters that read like a
number, are quoted. A name of more than 255 characters ends with a digest; metadata.full_name then has the whole name.

A value that Evidently could not compute is None, with the reason in metadata.error. So a failure never looks like
"no drift".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.evidently.conditions import intersect
from mlops_db.adapters.evidently.documents import HINT, read_document, to_json, to_jsonb
from mlops_db.adapters.evidently.legacy import is_legacy, read_legacy
from mlops_db.adapters.evidently.measurement import LeftOut, Measurement, finite
from mlops_db.adapters.evidently.names import DRIFT, dataset_drift, drift_score, find_method, shorten
from mlops_db.adapters.evidently.snapshot import is_snapshot, is_without_parameters, read_snapshot
from mlops_db.errors import AdapterError
from mlops_db.schema.limits import DEFAULT_MODEL
from mlops_db.storage.arguments import excerpt
from mlops_db.storage.metrics.bounds import Bounds
from mlops_db.storage.monitoring import failure_reason

if TYPE_CHECKING:
    import os
    from datetime import datetime

    from evidently.core.report import Snapshot

__all__ = ["LeftOut", "ReportRows", "failed_report_rows", "report_rows"]

# The parameters of DataDriftPreset that it passes on to DriftedColumnsCount, and the others.
_OF_DATASET = frozenset(
    {
        "columns",
        "drift_share",
        *(f"{of}{what}" for of in ("", "cat_", "num_", "text_", "per_column_") for what in ("method", "threshold")),
    }
)
_OF_PRESET = frozenset({"embeddings", "embeddings_drift_method", "include_tests"})
_NO_METHOD = (
    "its drift test is unknown, so its series is unknown, too: give DataDriftPreset a method= or a per_column_method=, "
    'and give the same to drift=, such as drift={"method": "psi"}'
)


class ReportRows(list[dict[str, Any]]):
    """The rows of a report, as `db.monitoring.log_many` takes them.

    Attributes:
        left_out: the parts of the report that have no row, with the reason.
        bounds: the normal range of the series, by the report's thresholds and tests, for `log_many(bounds=)`.
    """

    left_out: tuple[LeftOut, ...] = ()
    bounds: tuple[Bounds, ...] = ()


def report_rows(
    report: Snapshot | Mapping[str, Any] | str | bytes | os.PathLike[str],
    *,
    model_name: str = DEFAULT_MODEL,
    timestamp: datetime | None = None,
) -> ReportRows:
    """Convert a report to rows for `db.monitoring.log_many`. For saved reports, Evidently need not be installed.

    Args:
        report: what `Report(...).run(current, reference)` returns, its `dict()`, its `json()` as text or bytes, or the
            path of a file with its `json()` or `dumps()`. Text that begins with `{` is JSON, all other text a path.
            Before Evidently 0.7.16, only `dumps()` has the metrics' parameters. For Evidently 0.3 to 0.6, and for
            `evidently.legacy`: the `as_dict()` of a Report or a TestSuite, or its `json()`.
        model_name: the model that was measured.
        timestamp: the moment of the values, aware. By default `log_many` uses its `replace=`, or the time of the call.

    Returns:
        The rows. `left_out` lists the parts that have no row; pass `bounds` to `log_many(bounds=)`.

    Raises:
        AdapterError: it is no report of Evidently, or cannot be read.
    """
    document = read_document(report)
    try:
        return _to_rows(_read(document), model_name, timestamp)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Files that were edited, or written by a later version, can have any shape.
        raise AdapterError(
            f"a part of this report is not as Evidently writes it: {excerpt(error)}", hint=HINT
        ) from error


def failed_report_rows(
    error: BaseException | str,
    *,
    features: Iterable[str] = (),
    drift: Mapping[str, Any] | None = None,
    model_name: str = DEFAULT_MODEL,
    timestamp: datetime | None = None,
) -> ReportRows:
    """Failed rows of drift for `db.monitoring.log_many`, for a report that Evidently could not compute.

    One feature without values makes Evidently give up the whole report. Without these rows, it would look as if nobody
    had measured, or as if nothing had drifted.

    Args:
        error: the exception of `Report.run`.
        features: the columns of the report, whose drift scores are missing, too. Name no other columns: their series
            would stay failed, because no report measures them.
        drift: the arguments of DataDriftPreset, such as `{"method": "psi", "drift_share": 0.3}`. The names of the
            series depend on them.
        model_name: as for `report_rows`.
        timestamp: as for `report_rows`.

    Returns:
        Rows of the series that the report would have written: those of the dataset, whose metadata list the features,
        and a score for each feature whose drift test is in `drift`, by `method` or `per_column_method`. The other
        features are in `left_out`: Evidently chooses their drift tests, so their series are unknown.

    Raises:
        AdapterError: `features` is a text, or `drift` is not what DataDriftPreset takes.
    """
    parameters = _dataset_parameters(drift)
    if isinstance(features, str | bytes) or not isinstance(features, Iterable):
        raise AdapterError(
            f"features={excerpt(features)} is no list of columns", hint='Give the names: features=["age", "income"].'
        )
    names = [str(name) for name in features]
    reason = {"error": failure_reason(error)}
    of_dataset: dict[str, Any] = {"features": names, **reason} if names else reason
    failed: list[Measurement | LeftOut] = [
        Measurement(DRIFT, str(series), None, of_dataset) for series in dataset_drift(parameters)
    ]
    for name in names:
        method = find_method(name, parameters)
        series = str(drift_score(name, method))
        failed.append(
            Measurement(DRIFT, series, None, {"feature": name, **reason}) if method else LeftOut(series, _NO_METHOD)
        )
    return _to_rows(failed, model_name, timestamp)


def _read(document: Mapping[str, Any]) -> Iterator[Measurement | LeftOut]:
    if is_legacy(document):
        return read_legacy(document)
    if is_without_parameters(document):
        raise AdapterError(
            "this .dict() or .json() of a report before Evidently 0.7.16 has values without the parameters of their "
            "metrics, such as the column",
            hint="Give the report's .dumps() instead, as text or as the path of its file: report_rows(report.dumps()). "
            "If only this document is left, compute the report again.",
        )
    if not is_snapshot(document):
        raise AdapterError(f"a document of {', '.join(sorted(document)[:5])} is not a report of Evidently", hint=HINT)
    return read_snapshot(document)


def _dataset_parameters(drift: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters of DataDriftPreset that are in the names of the dataset's series."""
    parameters = to_json({} if drift is None else drift)
    if not isinstance(parameters, dict) or (unknown := parameters.keys() - _OF_DATASET - _OF_PRESET):
        wrong = ", ".join(sorted(unknown)) if isinstance(parameters, dict) else excerpt(drift)
        raise AdapterError(
            f"drift= has what DataDriftPreset does not take: {wrong}",
            hint='Give the mapping that DataDriftPreset(**...) was given, such as drift={"method": "psi"}.',
        )
    return {key: value for key, value in parameters.items() if key in _OF_DATASET}


def _to_rows(parts: Iterable[Measurement | LeftOut], model_name: str, timestamp: datetime | None) -> ReportRows:
    found: dict[tuple[str, str], list[Measurement]] = {}
    left_out: list[LeftOut] = []
    for part in parts:
        if isinstance(part, LeftOut):
            left_out.append(part)
        else:
            entry = replace(part, metadata=to_jsonb(part.metadata))
            found.setdefault((part.metric_type, part.metric_name), []).append(entry)
    common = {"model_name": model_name} | ({} if timestamp is None else {"timestamp": timestamp})
    rows, bounds = ReportRows(), []
    for (metric_type, full_name), entries in found.items():
        entry, dropped = _merge(entries)
        left_out += dropped
        name = shorten(full_name)
        metadata = entry.metadata if name == full_name else {**entry.metadata, "full_name": full_name}
        row = {"metric_type": metric_type, "metric_name": name, "metric_value": entry.value}
        rows.append({**row, "metadata": metadata or None, **common})
        lower, upper = finite(entry.lower), finite(entry.upper)  # the number beside the greatest one is infinite
        if lower is not None or upper is not None:
            bounds.append(Bounds(metric_type, name, lower, upper, model_name))
    rows.left_out, rows.bounds = tuple(dict.fromkeys(left_out)), tuple(bounds)
    return rows


def _merge(entries: list[Measurement]) -> tuple[Measurement, list[LeftOut]]:
    """Merge what a report holds of one series, independent of the order; and list what is lost."""
    lower, upper = intersect((entry.lower, entry.upper) for entry in entries)
    name = entries[0].metric_name
    ordered = sorted(entries, key=lambda entry: ((entry.lower, entry.upper) != (lower, upper), _text(entry.metadata)))
    kept = ordered[0]
    values = sorted({_text(entry.value) for entry in entries})
    if len(values) > 1:
        error = f"the report holds several values of it: {', '.join(values)}"
        kept = replace(kept, value=None, metadata={"error": error})
    dropped = [
        LeftOut(name, f"the report holds it more than once, also with {_text(differing)}")
        for other in ordered[1:]
        if (differing := {key: value for key, value in other.metadata.items() if kept.metadata.get(key) != value})
    ]
    if lower is not None and upper is not None and lower > upper:
        dropped.append(LeftOut(name, f"its bounds contradict each other: at least {lower}, at most {upper}"))
        lower = upper = None
    return replace(kept, lower=lower, upper=upper), dropped


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
