"""The answers of the three views, computed in plain Python from the rows of the tables.

For the views at head, and for those of the baseline (revision 0004). The baseline has no models and no catalogue of
series: its rows have no model_name, and may contain NULL, NaN and infinity anywhere. Its times are naive; at head they
are aware. This code follows the specification and not the SQL of the views, so that a test can find a difference.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]

GATES = (
    "sufficient_samples",
    "minimum_coverage",
    "promotion_cooldown",
    "metric_improvement",
    "calibration_maintained",
    "no_segment_regression",
)


def newest_first(rows: Iterable[Row], by: str) -> list[Row]:
    """Newest first; ties by the higher id; rows without a time last, by the higher id too."""
    given = list(rows)
    return sorted(
        (row for row in given if row[by] is not None), key=lambda row: (row[by], row["id"]), reverse=True
    ) + sorted((row for row in given if row[by] is None), key=lambda row: row["id"], reverse=True)


def gate_outcome(value: object) -> bool | None:
    """Whether a gate passed; None if no JSON boolean says so."""
    if isinstance(value, dict):
        value = value.get("passed")
    return value if isinstance(value, bool) else None


def gate_summary(gate_results: object) -> Row:
    results = gate_results if isinstance(gate_results, dict) else {}
    outcomes = {gate: gate_outcome(value) for gate, value in results.items()}
    in_order = [*GATES, *sorted(outcomes.keys() - set(GATES))]
    return {
        "gates_passed": sum(outcome is True for outcome in outcomes.values()),
        "gates_failed": sum(outcome is False for outcome in outcomes.values()),
        "gates_unknown": sum(outcome is None for outcome in outcomes.values()),
        "gates_not_run": sum(gate not in results for gate in GATES),
        "first_failed_gate": next((gate for gate in in_order if outcomes.get(gate) is False), None),
        "all_gates_passed": all(outcomes.get(gate) is True for gate in GATES),
    }


def decision_history(decisions: Sequence[Row], models: Sequence[Row]) -> list[Row]:
    registered = {model["mlflow_run_id"]: model for model in models}
    answer = []
    for decision in newest_first(decisions, by="decision_timestamp"):
        model = registered.get(decision["candidate_mlflow_run_id"], {})
        gates = gate_summary(decision["gate_results"])
        answer.append(
            decision
            | {name: model.get(name) for name in ("model_version", "f1_score", "brier_score", "promoted_at")}
            | {"model_status": model.get("status")}
            | gates
            | {"promoted_with_failed_gate": decision["action"] == "promote" and gates["gates_failed"] > 0}
        )
    return answer


def model_timeline(models: Sequence[Row], periods: Iterable[Row]) -> list[Row]:
    """At head: each version with its latest one of `periods`, which are in their order."""
    latest = {period["mlflow_run_id"]: period for period in periods}
    nothing = dict.fromkeys(("since", "until", "previous_version", "f1_delta", "brier_delta"))
    answer = []
    for model in newest_first(models, by="created_at"):
        period = latest.get(model["mlflow_run_id"], nothing)
        answer.append(
            model
            | {column: period[column] for column in ("previous_version", "f1_delta", "brier_delta")}
            | {
                "in_production": model["status"] == "production",
                "promoted_at": period["since"],
                "production_until": period["until"],
            }
        )
    return answer


def model_timeline_of_the_baseline(models: Sequence[Row]) -> list[Row]:
    """At revision 0004: one model, and the latest promotion of each version."""
    promoted = sorted(
        (model for model in models if model["promoted_at"] is not None),
        key=lambda model: (model["promoted_at"], model["id"]),
    )
    neighbours = {
        model["id"]: (before, after)
        for before, model, after in zip([{}, *promoted], promoted, [*promoted[1:], {}], strict=False)
    }
    answer = []
    for model in newest_first(models, by="created_at"):
        before, after = neighbours.get(model["id"], ({}, {}))
        answer.append(
            model
            | {
                "in_production": model["status"] == "production",
                "production_until": after.get("promoted_at"),
                "previous_version": before.get("model_version"),
                "f1_delta": difference(model["f1_score"], before.get("f1_score")),
                "brier_delta": difference(model["brier_score"], before.get("brier_score")),
            }
        )
    return answer


Series = tuple[str | None, ...]


def newest_of_each_series(measurements: Iterable[Row], *series: str) -> dict[Series, Row]:
    """The newest row of each series, with the value before it as previous_value. `series` are its key columns."""
    found: defaultdict[Series, list[Row]] = defaultdict(list)
    for row in newest_first(measurements, by="timestamp"):
        found[tuple(row[column] for column in series)].append(row)
    return {
        key: row | {"previous_value": earlier[0]["metric_value"] if earlier else None}
        for key, (row, *earlier) in found.items()
    }


def recent_monitoring(measurements: Iterable[Row], catalogue: Iterable[Row], now: datetime) -> list[Row]:
    """At head: one row for each series of the catalogue; the series without measurements last, in the names' order."""
    series = ("model_name", "metric_type", "metric_name")
    newest = newest_of_each_series(measurements, *series)
    measured, missing = [], []
    for entry in sorted(catalogue, key=lambda entry: tuple(entry[column] for column in series)):
        row = newest.get(tuple(entry[column] for column in series))
        age = None if row is None else now - row["timestamp"]
        expected = {column: entry[column] for column in ("expected_interval", "lower_threshold", "upper_threshold")}
        answer = dict.fromkeys(("id", "timestamp", "metric_value", "previous_value", "metadata", "created_at"))
        answer |= {column: entry[column] for column in series} | (row or {}) | expected
        answer |= {
            "delta": difference(moderate(answer["metric_value"]), moderate(answer["previous_value"])),
            "age": age,
            "stale": expected["expected_interval"] is not None and (age is None or age > expected["expected_interval"]),
            "health": health(row, age, **expected),
        }
        (missing if row is None else measured).append(answer)
    return newest_first(measured, by="timestamp") + missing


def health(
    row: Row | None,
    age: timedelta | None,
    *,
    expected_interval: timedelta | None,
    lower_threshold: float | None,
    upper_threshold: float | None,
) -> str:
    """The worst finding about the newest row of a series. Its age matters more than its value."""
    if row is None or age is None:
        return "missing"
    if expected_interval is not None and age > expected_interval:
        return "stale"
    return state_of_value(row, lower_threshold, upper_threshold)


def state_of_value(row: Row, lower_threshold: float | None, upper_threshold: float | None) -> str:
    """The worst finding about a value. A bound of the catalogue matters more than what its own metadata says."""
    value, metadata = row["metric_value"], row["metadata"]
    findings = {
        "failed": value is None,
        "low": value is not None and lower_threshold is not None and value < lower_threshold,
        "high": value is not None and upper_threshold is not None and value > upper_threshold,
        "drifted": isinstance(metadata, dict) and metadata.get("drift_detected") is True,
    }
    return next((name for name, found in findings.items() if found), "ok")


def recent_monitoring_of_the_baseline(measurements: Iterable[Row], now_utc: datetime) -> list[Row]:
    """At revision 0004: one row for each series that has rows; type and name may be NULL."""
    return newest_first(
        (
            row
            | {
                "delta": difference(row["metric_value"], row["previous_value"]),
                "age": row["timestamp"] and now_utc - row["timestamp"],
            }
            for row in newest_of_each_series(measurements, "metric_type", "metric_name").values()
        ),
        by="timestamp",
    )


def difference(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def moderate(value: float | None) -> float | None:
    """The value; None if it is so large that a difference from another value may not fit a double."""
    return None if value is None or abs(value) >= 8e307 else value


def comparable(rows: Iterable[Row]) -> list[Row]:
    """The rows with NaN as a text, because NaN is not equal to itself."""
    return [
        {name: "NaN" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]
