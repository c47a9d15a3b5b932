"""Hypothesis strategies for the rows that the views read, at head."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from support.gate_documents import gate_documents
from support.views_model import Row

loads: Callable[[str | bytes], object] = partial(json.loads, parse_float=Decimal, parse_int=Decimal)


def rolled_back(max_examples: int) -> settings:
    """For a test that rolls each example's rows back, so that one database serves all of them."""
    return settings(
        max_examples=max_examples, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


# Few values, so that ties, shared series and repeated candidates are frequent.
THIS_MONTH = datetime.now(timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
times = st.sampled_from([at(f"2026-01-0{day} {hour}:00") for day in (1, 2) for hour in ("00", "12")])
# In one partition and in several, the ones without an end among them.
moments = times | st.sampled_from(
    [
        at("0001-01-01"),
        THIS_MONTH,
        THIS_MONTH - timedelta(microseconds=1),
        THIS_MONTH + timedelta(days=40),
        at("9999-12-31 23:59:59.999999"),
    ]
)
models = st.sampled_from(["default", "fraud"])
shares = st.none() | st.sampled_from([0.0, 0.1, 0.7, 1.0])
runs = st.sampled_from(["run-1", "run-2", "run-3", "run-4"])


def one_in_production(versions: list[Row]) -> list[Row]:
    """The versions, with all production versions of a model but its first one archived."""
    serving: set[str] = set()
    kept = []
    for version in versions:
        second = version["status"] == "production" and version["model_name"] in serving
        kept.append(version | {"status": "archived"} if second else version)
        serving |= {version["model_name"]} if version["status"] == "production" else set()
    return kept


# Ids do not follow the order of insertion.
model_rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(1, 1000),
            "mlflow_run_id": st.text("abc", min_size=1, max_size=3) | runs,
            "model_version": st.sampled_from(["9", "10", "v1"]),
            "status": st.sampled_from(["staging", "production", "archived"]),
            "f1_score": shares,
            "brier_score": shares,
            "created_at": times,
            "promoted_at": st.none() | times,
            "model_name": models,
        }
    ),
    max_size=12,
    unique_by=(lambda row: row["id"], lambda row: row["mlflow_run_id"]),
).map(one_in_production)
decision_rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(1, 1000),
            "decision_timestamp": times,
            "action": st.sampled_from(["promote", "reject", "pending"]),
            "candidate_mlflow_run_id": st.none() | runs,
            "gate_results": st.none() | gate_documents,
            "reasoning": st.none() | st.just("why"),
            "created_at": times,
            "model_name": models,
            "is_rollback": st.booleans(),
            "decided_by": st.none() | st.just("ada"),
        }
    ),
    max_size=12,
    unique_by=lambda row: row["id"],
)
names = {
    "model_name": models,
    "metric_type": st.sampled_from(["drift", "coverage"]),
    "metric_name": st.sampled_from(["a", "b"]),
}
scalars = (
    "true",
    "false",
    "null",
    "0.1",
    "0.5",
    "-1",
    "1e400",
    "-1e400",
    "1e-400",
    '"0.1"',
    '"NaN"',
    '"true"',
    "[0.1]",
)
values = st.sampled_from([*scalars, '{"threshold": 0.1, "drift_detected": true}'])
# As text, because Python's floats do not hold all numbers of JSON.
documents = values | st.dictionaries(
    st.sampled_from(["threshold", "drift_detected", "details"]), values | st.sampled_from(["true", "false", "0.1"])
).map(lambda found: f"{{{', '.join(f'{json.dumps(key)}: {value}' for key, value in found.items())}}}")
# Two series may have rows of one moment and one id.
measurement_rows = st.lists(
    st.fixed_dictionaries(
        {
            **names,
            "id": st.integers(1, 5) | st.integers(2**31, 2**31 + 1000),
            "timestamp": moments,
            "metric_value": st.none() | st.sampled_from([0.0, 0.1, 0.7, -1.0, 7.9e307, 1.7e308, -1.7e308]),
            "metadata": st.none() | documents,
            "created_at": times,
        }
    ),
    max_size=12,
    unique_by=lambda row: (*(row[name] for name in names), row["timestamp"], row["id"]),
)
expectations = st.lists(
    st.fixed_dictionaries(
        {
            **names,
            "expected_interval": st.none() | st.sampled_from([timedelta(microseconds=1), timedelta(days=30)]),
            "lower_threshold": st.none() | st.sampled_from([-2.0, 0.0, 0.1]),
            "upper_threshold": st.none() | st.sampled_from([0.1, 0.5, 1e308]),
        }
    ),
    max_size=4,
    unique_by=lambda row: tuple(row[name] for name in names),
)


def parsed(measurements: Iterable[Row]) -> list[Row]:
    """Measurements as the database returns them, with numbers in JSON as Decimals."""
    return [row | {"metadata": row["metadata"] and loads(row["metadata"])} for row in measurements]


def catalogue_of(measurements: Iterable[Row], expected: Iterable[Row]) -> list[Row]:
    """The series of both; what is not expected is NULL."""
    nothing = dict.fromkeys(("expected_interval", "lower_threshold", "upper_threshold"))
    entries = {tuple(row[name] for name in names): {name: row[name] for name in names} | nothing
               for row in measurements}  # fmt: skip
    return list((entries | {tuple(row[name] for name in names): row for row in expected}).values())
