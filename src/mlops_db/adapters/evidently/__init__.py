"""Evidently's reports as rows of monitoring_metrics, for `db.monitoring.log_many`: of 0.7.21 and later, or 0.3 to 0.6.

| metric_type | metric_name | value |
|-|-|-|
| drift | dataset_drift_detected | 1 if the share of drifted columns reaches the report's drift_share, else 0 |
| drift | number_of_drifted_columns, share_of_drifted_columns | counted; 0 to 1 |
| drift | drift_score.age[method=ks] | the score of the column age by that drift test: a p-value or a distance |
| performance | accuracy, roc_auc, mae.mean, f1_by_label.yes, ndcg[k=3] | of classification, regression and ranking |
| quality | row_count, missing_value_share.age, quantile_value.age[quantile=0.25] | everything else |
| test | missing_value_share.age[lte=0.1] | 1 if the test passed, 0 if it failed |

A name is `metric.column.label[parameter=value,...]`: what was measured alone decides it. What goes without saying is
not told, such as `drift_share=0.5`. Texts that hold a character of the syntax, or read like a number, are quoted. A
name of more than 255 characters ends with a digest, and metadata.full_name has the whole.

A value that could not be computed is None with the reason in metadata.error: a failed row, never "no drift".
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.evidently.conditions import common
from mlops_db.adapters.evidently.documents import plain, read_document
from mlops_db.adapters.evidently.legacy import is_legacy, read_legacy
from mlops_db.adapters.evidently.measured import LeftOut, Measured
from mlops_db.adapters.evidently.names import DRIFT, dataset_drift, drift_score, fitting
from mlops_db.adapters.evidently.snapshot import is_snapshot, read_snapshot
from mlops_db.errors import AdapterError
from mlops_db.storage.metric_bounds import Bounds
from mlops_db.storage.monitoring import failure_reason
from mlops_db.storage.values import DEFAULT_MODEL

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from evidently.core.report import Snapshot

__all__ = ["LeftOut", "ReportRows", "failed_report_rows", "report_rows"]


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
            Of Evidently 0.3 to 0.6, and of `evidently.legacy`: the `as_dict()` of a Report or a TestSuite, or its
            `json()`.
        model_name: the model that was measured.
        timestamp: the moment that the values are about, aware; left out, `log_many` gives them its `replace=`, or the
            time of the call.

    Returns:
        The rows; `left_out` names what no row tells, and `bounds` is for `log_many(bounds=)`.

    Raises:
        AdapterError: it is no such report, or cannot be read.
    """
    document = read_document(report)
    if is_legacy(document):
        return _rows(read_legacy(document), model_name, timestamp)
    if not is_snapshot(document):
        raise AdapterError(
            f"a document of {', '.join(sorted(document)[:5])} is not what a report of Evidently 0.7, or 0.3 to 0.6, "
            "measured",
            hint="Give what Report(...).run(current, reference) returns, its .dict(), or what its .json() or .dumps() "
            "wrote. Those of 0.7 before 0.7.21 tell the parameters of their metrics in .dumps() alone.",
        )
    return _rows(read_snapshot(document), model_name, timestamp)


def failed_report_rows(
    error: BaseException | str,
    *,
    features: Collection[str] = (),
    drift: Mapping[str, Any] | None = None,
    model_name: str = DEFAULT_MODEL,
    timestamp: datetime | None = None,
) -> ReportRows:
    """The drift of a report that could not be computed, as failed rows, for `db.monitoring.log_many`.

    One feature without values makes Evidently give up the whole report; what is not stored then would look as if
    nobody had measured, or as if nothing had drifted.

    Args:
        error: what `Report.run` raised.
        features: the features whose drift scores are missing with it.
        drift: what DataDriftPreset was given, such as `{"method": "psi", "drift_share": 0.3}`: it decides the names. A
            feature whose drift test it does not tell fails as `drift_score.age`, a series for itself.
        model_name: as with `report_rows`.
        timestamp: as with `report_rows`.
    """
    given = plain(drift or {})
    reason = {"error": failure_reason(error)}
    failed = [Measured(DRIFT, str(series), None, reason) for series in dataset_drift(given)]
    for name in features:
        method = (given.get("per_column_method") or {}).get(name, given.get("method"))
        failed.append(Measured(DRIFT, str(drift_score(name, method)), None, {"feature": name, **reason}))
    return _rows(failed, model_name, timestamp)


def _rows(read: Iterable[Measured | LeftOut], model_name: str, timestamp: datetime | None) -> ReportRows:
    found: dict[tuple[str, str], list[Measured]] = {}
    left_out: list[LeftOut] = []
    for each in read:
        if isinstance(each, LeftOut):
            left_out.append(each)
        else:
            found.setdefault((each.metric_type, each.metric_name), []).append(each)
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
        if one.lower is not None or one.upper is not None:
            bounds.append(Bounds(metric_type, name, one.lower, one.upper, model_name))
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
