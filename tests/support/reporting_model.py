"""The answers of schema reporting, computed in plain Python from the rows of the tables.

This code follows the comments of the views and not their SQL, so that a test can find a difference.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from math import fsum
from typing import Any

from support.views_model import GATES, Row, difference, gate_outcome, state_of_value

SERIES = ("model_name", "metric_type", "metric_name")
DAY = timedelta(days=1)


def metric_history(measurements: Iterable[Row], catalogue: Iterable[Row]) -> list[Row]:
    """One row for each measurement, by its id. Numbers in `metadata` are Decimals."""
    entries = {tuple(entry[column] for column in SERIES): entry for entry in catalogue}
    answer = []
    for row in sorted(measurements, key=lambda row: row["id"]):
        entry = entries[tuple(row[column] for column in SERIES)]
        bounds = {column: entry[column] for column in ("lower_threshold", "upper_threshold")}
        own = own_threshold(row["metadata"])
        answer.append(
            {column: row[column] for column in ("id", "timestamp", *SERIES, "metric_value", "metadata")}
            | bounds
            | {"own_threshold": own, "low_is_drift": low_is_drift(row, own), "state": state_of_value(row, **bounds)}
        )
    return answer


def own_threshold(metadata: object) -> float | None:
    """The number under "threshold"; None if a double cannot hold it."""
    value = metadata.get("threshold") if isinstance(metadata, dict) else None
    return float(value) if isinstance(value, Decimal) and abs(value) < Decimal("1e308") else None


def low_is_drift(row: Row, threshold: float | None) -> bool | None:
    """On which side of its own threshold a series drifts, as far as one row tells."""
    drifted = row["metadata"].get("drift_detected") if isinstance(row["metadata"], dict) else None
    if row["metric_value"] is None or threshold is None or not isinstance(drifted, bool):
        return None
    return row["metric_value"] < threshold if drifted else row["metric_value"] >= threshold


def production_periods(models: Sequence[Row], decisions: Iterable[Row]) -> list[Row]:
    """The periods of each model, in their order."""
    decided = list(decisions)
    return [
        period
        for name in sorted({model["model_name"] for model in models})
        for period in _periods_of_one_model(
            {model["mlflow_run_id"]: model for model in models if model["model_name"] == name},
            [decision for decision in decided if decision["model_name"] == name],
        )
    ]


def _periods_of_one_model(versions: dict[str, Row], decisions: list[Row]) -> list[Row]:
    promotions = {(model["promoted_at"], model["id"], run) for run, model in versions.items() if model["promoted_at"]}
    for decision in decisions:
        run, moment = decision["candidate_mlflow_run_id"], decision["decision_timestamp"]
        if decision["action"] == "promote" and run in versions:
            version = versions[run]
            # A decision that was only recorded put nothing into production.
            if version["status"] == "production" or (version["promoted_at"] and moment < version["promoted_at"]):
                promotions.add((moment, version["id"], run))
    changes: list[tuple[datetime | None, str]] = [(moment, run) for moment, _, run in sorted(promotions)]
    # A version that was put there by hand is the last one, since nobody knows when.
    changes += [(None, run) for run, model in versions.items() if model["status"] == "production"]
    periods: list[Row] = []
    for moment, run in changes:
        if periods and periods[-1]["mlflow_run_id"] == run:
            continue  # it is in production already
        version, before = versions[run], versions[periods[-1]["mlflow_run_id"]] if periods else {}
        if periods:
            periods[-1]["until"] = moment
        periods.append(
            {column: version[column] for column in ("model_name", "model_version", "mlflow_run_id", "f1_score")}
            | {
                "brier_score": version["brier_score"],
                "since": moment,
                "until": None,
                "in_production": False,
                "returned": run in {period["mlflow_run_id"] for period in periods},
                "previous_version": before.get("model_version"),
                "f1_delta": difference(version["f1_score"], before.get("f1_score")),
                "brier_delta": difference(version["brier_score"], before.get("brier_score")),
            }
        )
    if periods:
        periods[-1]["in_production"] = versions[periods[-1]["mlflow_run_id"]]["status"] == "production"
    return periods


def decision_gates(decisions: Iterable[Row], models: Iterable[Row]) -> list[Row]:
    """The gates of each decision by its id, in their order."""
    registered = {model["mlflow_run_id"]: model["model_version"] for model in models}
    copied = ("id", "decision_timestamp", "model_name", "action", "candidate_mlflow_run_id")
    answer = []
    for decision in sorted(decisions, key=lambda decision: decision["id"]):
        results = decision["gate_results"] or {}
        in_order = [*GATES, *sorted(results.keys() - set(GATES))]
        answer += [
            {column: decision[column] for column in copied}
            | {
                "model_version": registered.get(decision["candidate_mlflow_run_id"]),
                "position": position,
                "gate": gate,
                "result": _result(results[gate]) if gate in results else "not run",
                "details": results.get(gate),
            }
            for position, gate in enumerate(in_order, start=1)
        ]
    return answer


def _result(value: object) -> str:
    outcome = gate_outcome(value)
    return "unknown" if outcome is None else ("passed" if outcome else "failed")


def metric_daily(measurements: Iterable[Row], since: datetime, until: datetime) -> list[Row]:
    """Each series on each day in UTC that [since, until) touches, in order. The mean is not rounded as PostgreSQL's."""
    days: defaultdict[tuple[Any, ...], list[float | None]] = defaultdict(list)
    for row in measurements:
        day = row["timestamp"].astimezone(timezone.utc).date()
        begin = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
        # A part of the day lies in the range.
        if max(begin, since) < min(begin + DAY, until):
            days[(day, *(row[column] for column in SERIES))].append(row["metric_value"])
    return [dict(zip(("day", *SERIES), key, strict=True)) | _summary(values) for key, values in sorted(days.items())]


def _summary(given: list[float | None]) -> Row:
    values = [value for value in given if value is not None]
    moderate = values and max(map(abs, values)) < 1e140
    return {
        "minimum": min(values, default=None),
        "mean": fsum(values) / len(values) if moderate else None,
        "maximum": max(values, default=None),
        "count": len(values),
        "failed": len(given) - len(values),
    }
