"""What the three views answer, worked out in plain Python from the rows of the tables.

Written from the specification and from what the columns mean, not from the views' SQL, so that the two can disagree.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
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
    """Newest first; ties by the higher id; rows without a time last."""
    return sorted(rows, key=lambda row: (row[by] is not None, row[by] or datetime.min, row["id"]), reverse=True)  # noqa: DTZ901  (the columns have no time zone)


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


def model_timeline(models: Sequence[Row]) -> list[Row]:
    promoted = [model for model in models if model["promoted_at"] is not None]
    promoted.sort(key=lambda model: (model["promoted_at"], model["id"]))
    neighbours: dict[int, tuple[Row, Row]] = {}
    for position, model in enumerate(promoted):
        before = promoted[position - 1] if position else {}
        after = promoted[position + 1] if position + 1 < len(promoted) else {}
        neighbours[model["id"]] = before, after
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


def recent_monitoring(measurements: Sequence[Row], now_utc: datetime) -> list[Row]:
    series: defaultdict[tuple[str | None, str | None], list[Row]] = defaultdict(list)
    for row in newest_first(measurements, by="timestamp"):
        series[row["metric_type"], row["metric_name"]].append(row)
    newest = []
    for row, *earlier in series.values():
        previous = earlier[0]["metric_value"] if earlier else None
        newest.append(
            row
            | {
                "previous_value": previous,
                "delta": difference(row["metric_value"], previous),
                "age": row["timestamp"] and now_utc - row["timestamp"],
            }
        )
    return newest_first(newest, by="timestamp")


def difference(new: float | None, old: float | None) -> float | None:
    return None if new is None or old is None else new - old


def comparable(rows: Iterable[Row]) -> list[Row]:
    """The rows with NaN made equal to itself."""
    return [
        {name: "NaN" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]
