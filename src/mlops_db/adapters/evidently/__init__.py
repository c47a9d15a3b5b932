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

from collections import Counter
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.evidently.measured import LeftOut, Measured
from mlops_db.adapters.evidently.names import DATASET_DRIFT, DRIFT, DRIFT_SCORE, DRIFTED_COUNT, DRIFTED_SHARE
from mlops_db.adapters.evidently.snapshot import read_snapshot
from mlops_db.errors import AdapterError
from mlops_db.storage.metric_rows import MAX_CHARACTERS
from mlops_db.storage.monitoring import failure_reason
from mlops_db.storage.values import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from evidently.core.report import Snapshot

__all__ = ["LeftOut", "failed_report_rows", "report_rows"]


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
    return _mappings(list(read_snapshot(snapshot)), model_name, timestamp)


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
    rows = [Measured(DRIFT, name, None, reason) for name in names]
    rows += [Measured(DRIFT, f"{DRIFT_SCORE}.{name}", None, {"feature": name, **reason}) for name in features]
    return _mappings(rows, model_name, timestamp)


def _mappings(rows: list[Measured], model_name: str, timestamp: datetime | None) -> list[dict[str, Any]]:
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
