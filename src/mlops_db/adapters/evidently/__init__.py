"""Evidently's reports, of 0.3 to 0.7, as rows of monitoring_metrics, for `db.monitoring.log_many`.

| metric_type | metric_name | value |
|-|-|-|
| drift | dataset_drift_detected | 1 if the share of drifted columns reaches the report's drift_share, else 0 |
| drift | number_of_drifted_columns, share_of_drifted_columns | counted; 0 to 1 |
| drift | drift_score.age[method=ks] | the score of the column age by that drift test: a p-value or a distance |
| performance | accuracy, roc_auc, mae.mean, f1_by_label.yes, ndcg[k=3] | of classification, regression and ranking |
| quality | row_count, missing_value_share.age, quantile_value.age[quantile=0.25] | everything else |
| test | missing_value_share.age[lte=0.1] | 1 if the test passed, 0 if it failed |

A name is `metric.column.label[parameter=value,...]`: what was measured alone decides it. What goes without saying is
not told, such as `drift_share=0.5`. Texts that hold a character of the syntax, and texts of parameters that read like a
number, are quoted. A name of more than 255 characters ends with a digest, and metadata.full_name has the whole.

A value that could not be computed is None with the reason in metadata.error: a failed row, never "no drift".
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.evidently.conditions import common
from mlops_db.adapters.evidently.documents import HINT, plain, read_document, storable
from mlops_db.adapters.evidently.legacy import is_legacy, read_legacy
from mlops_db.adapters.evidently.measured import LeftOut, Measured, finite
from mlops_db.adapters.evidently.names import DRIFT, dataset_drift, drift_score, fitting, told_method
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

# The parameters of DataDriftPreset: those that it hands on to DriftedColumnsCount, and the others.
_OF_DATASET = frozenset(
    {
        "columns",
        "drift_share",
        *(f"{of}{what}" for of in ("", "cat_", "num_", "text_", "per_column_") for what in ("method", "threshold")),
    }
)
_OF_PRESET = frozenset({"embeddings", "embeddings_drift_method", "include_tests"})
_NO_METHOD = (
    "which drift test it would have had is not told: give DataDriftPreset a method= or a per_column_method=, and the "
    'same to drift=, such as drift={"method": "psi"}'
)


class ReportRows(list[dict[str, Any]]):
    """The rows of a report, as `db.monitoring.log_many` takes them.

    Attributes:
        left_out: what the report holds and no row tells, with the reason.
        bounds: within which the series are normal, as the report's thresholds and tests say: `log_many(bounds=)`.
    """

    def __init__(
        self,
        rows: Iterable[dict[str, Any]] = (),
        *,
        left_out: tuple[LeftOut, ...] = (),
        bounds: tuple[Bounds, ...] = (),
    ) -> None:
        """Hold the rows, and what goes with them."""
        super().__init__(rows)
        self.left_out: tuple[LeftOut, ...] = left_out
        self.bounds: tuple[Bounds, ...] = bounds


def report_rows(
    report: Snapshot | Mapping[str, Any] | str | bytes | os.PathLike[str],
    *,
    model_name: str = DEFAULT_MODEL,
    timestamp: datetime | None = None,
) -> ReportRows:
    """What a report measured, as rows for `db.monitoring.log_many`. Saved reports need no Evidently.

    Args:
        report: what `Report(...).run(current, reference)` returns, its `dict()`, its `json()` as text or bytes, or the
            path of a file with its `json()` or `dumps()`. Text that begins with `{` is JSON, all other text a path.
            Before Evidently 0.7.16, only `dumps()` tells what the values are of. Of Evidently 0.3 to 0.6, and of
            `evidently.legacy`: the `as_dict()` of a Report or a TestSuite, or its `json()`.
        model_name: the model that was measured.
        timestamp: the moment that the values are about, aware; left out, `log_many` gives them its `replace=`, or the
            time of the call.

    Returns:
        The rows; `left_out` names what no row tells, and `bounds` is for `log_many(bounds=)`.

    Raises:
        AdapterError: it is no such report, or cannot be read.
    """
    document = read_document(report)
    try:
        return _rows(_read(document), model_name, timestamp)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What Evidently writes has one shape; files that somebody has edited, or of a version to come, have another.
        raise AdapterError(
            f"a part of this report is not as Evidently writes it: {excerpt(error)}", hint=HINT
        ) from error


def _read(document: Mapping[str, Any]) -> Iterator[Measured | LeftOut]:
    if is_legacy(document):
        return read_legacy(document)
    if is_without_parameters(document):
        raise AdapterError(
            "this .dict() or .json() of a report before Evidently 0.7.16 has values and not what they are of: the "
            "parameters of its metrics are missing",
            hint="Give the report's .dumps() instead, as text or as the path of its file: report_rows(report.dumps()). "
            "Where nothing but this document is left, the report has to be computed anew.",
        )
    if not is_snapshot(document):
        raise AdapterError(
            f"a document of {', '.join(sorted(document)[:5])} is not what a report of Evidently measured", hint=HINT
        )
    return read_snapshot(document)


def failed_report_rows(
    error: BaseException | str,
    *,
    features: Iterable[str] = (),
    drift: Mapping[str, Any] | None = None,
    model_name: str = DEFAULT_MODEL,
    timestamp: datetime | None = None,
) -> ReportRows:
    """The drift of a report that could not be computed, as failed rows, for `db.monitoring.log_many`.

    One feature without values makes Evidently give up the whole report; what is not stored then would look as if
    nobody had measured, or as if nothing had drifted.

    Args:
        error: what `Report.run` raised.
        features: the columns that the report would have measured: their drift scores are missing with it. A series of
            another column would stay failed, as no report measures it.
        drift: what DataDriftPreset was given, such as `{"method": "psi", "drift_share": 0.3}`: it decides the names.
        model_name: as with `report_rows`.
        timestamp: as with `report_rows`.

    Returns:
        Rows of the series that the report would have written: the dataset's, whose metadata name the features, and a
        score for each feature whose drift test `drift` tells by `method` or `per_column_method`. The other features
        are in `left_out`: where Evidently chooses the test, nobody knows which series would have their scores.

    Raises:
        AdapterError: `features` is a text, or `drift` is not what DataDriftPreset takes.
    """
    given = _parameters(drift)
    if isinstance(features, str | bytes) or not isinstance(features, Iterable):
        raise AdapterError(
            f"features={excerpt(features)} is no list of columns", hint='Give the names: features=["age", "income"].'
        )
    names = [str(name) for name in features]
    reason = {"error": failure_reason(error)}
    of_all: dict[str, Any] = {"features": names, **reason} if names else reason
    failed: list[Measured | LeftOut] = [Measured(DRIFT, str(series), None, of_all) for series in dataset_drift(given)]
    for name in names:
        method = told_method(name, given)
        series = str(drift_score(name, method))
        failed.append(
            Measured(DRIFT, series, None, {"feature": name, **reason}) if method else LeftOut(series, _NO_METHOD)
        )
    return _rows(failed, model_name, timestamp)


def _parameters(drift: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those parameters of DataDriftPreset that decide the names."""
    given = plain({} if drift is None else drift)
    if not isinstance(given, dict) or (unknown := given.keys() - _OF_DATASET - _OF_PRESET):
        told = ", ".join(sorted(unknown)) if isinstance(given, dict) else excerpt(drift)
        raise AdapterError(
            f"drift= has what DataDriftPreset does not take: {told}",
            hint='Give the mapping that DataDriftPreset(**...) was given, such as drift={"method": "psi"}.',
        )
    return {key: value for key, value in given.items() if key in _OF_DATASET}


def _rows(read: Iterable[Measured | LeftOut], model_name: str, timestamp: datetime | None) -> ReportRows:
    found: dict[tuple[str, str], list[Measured]] = {}
    left_out: list[LeftOut] = []
    for each in read:
        if isinstance(each, LeftOut):
            left_out.append(each)
        else:
            entry = replace(each, metadata=storable(each.metadata))
            found.setdefault((each.metric_type, each.metric_name), []).append(entry)
    common_keys = {"model_name": model_name} | ({} if timestamp is None else {"timestamp": timestamp})
    rows, bounds = [], []
    for (metric_type, full_name), entries in found.items():
        one, dropped = _one(entries)
        left_out += dropped
        name = fitting(full_name)
        metadata = one.metadata if name == full_name else {**one.metadata, "full_name": full_name}
        rows.append(
            {
                "metric_type": metric_type,
                "metric_name": name,
                "metric_value": one.value,
                "metadata": metadata or None,
                **common_keys,
            }
        )
        lower, upper = finite(one.lower), finite(one.upper)  # beside the greatest number there is none to store
        if lower is not None or upper is not None:
            bounds.append(Bounds(metric_type, name, lower, upper, model_name))
    return ReportRows(rows, left_out=tuple(dict.fromkeys(left_out)), bounds=tuple(bounds))


def _one(entries: list[Measured]) -> tuple[Measured, list[LeftOut]]:
    """One row of what a report holds once or more often, the same whatever its order; and what of it is dropped."""
    lower, upper = common((entry.lower, entry.upper) for entry in entries)
    name = entries[0].metric_name
    ordered = sorted(entries, key=lambda entry: ((entry.lower, entry.upper) != (lower, upper), _text(entry.metadata)))
    kept = ordered[0]
    values = sorted({_text(entry.value) for entry in entries})
    if len(values) > 1:
        told = f"the report holds several values of it: {', '.join(values)}"
        kept = replace(kept, value=None, metadata={"error": told})
    dropped = [
        LeftOut(name, f"it is there more than once: also with {_text(differing)}")
        for other in ordered[1:]
        if (differing := {key: value for key, value in other.metadata.items() if kept.metadata.get(key) != value})
    ]
    if lower is not None and upper is not None and lower > upper:
        dropped.append(LeftOut(name, f"its bounds, which contradict each other: at least {lower}, at most {upper}"))
        lower = upper = None
    return replace(kept, lower=lower, upper=upper), dropped


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
