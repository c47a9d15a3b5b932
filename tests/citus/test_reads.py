"""Reads go to the node that has the rows: those of one model to one shard, others to all shards at once."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.monitoring import Monitoring
from support.database import Database

NOON = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
DISTRIBUTED = re.compile("monitoring_metrics|metric_series|v_recent_monitoring")
MODELS = [f"model {number}" for number in range(12)]


@pytest.fixture
def monitoring(over_two: Database) -> Iterator[Monitoring]:
    with DatabaseManager(over_two.settings) as db:
        for hour in range(4):
            rows = [
                {"metric_type": "drift", "metric_name": name, "metric_value": hour, "model_name": model}
                for model in MODELS
                for name in ("age", "height")
            ]
            db.monitoring.log_many(rows, replace=NOON + timedelta(hours=2 * hour))
        for model in MODELS:
            db.monitoring.expect("drift", "age", model_name=model, interval=timedelta(hours=1))
        yield db.monitoring


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plans of queries of distributed tables that are sent from now on."""
    found: list[str] = []
    execute, copy_out = SafeCursor.execute, SafeCursor.copy_out

    def explain(cursor: SafeCursor, query: str, values: Any) -> None:
        if re.match(r"\s*SELECT", query) and DISTRIBUTED.search(query):
            execute(cursor, f"EXPLAIN (COSTS OFF) {query}", values)
            found.append("\n".join(line for (line,) in cursor.fetchall()))

    def explain_and_execute(self: SafeCursor, query: str, vars: Any = None) -> None:  # noqa: A002
        explain(self, query, vars)
        execute(self, query, vars)

    def explain_and_copy(self: SafeCursor, query: str, vars: Any, file: Any) -> None:  # noqa: A002
        explain(self, query, vars)
        copy_out(self, query, vars, file)

    monkeypatch.setattr(SafeCursor, "execute", explain_and_execute)
    monkeypatch.setattr(SafeCursor, "copy_out", explain_and_copy)
    return found


ONE_MODEL: dict[str, Callable[[Monitoring], Any]] = {
    "latest": lambda m: m.latest(MODELS[0]),
    "latest of a type": lambda m: m.latest(MODELS[0], "drift"),
    "series": lambda m: m.series(MODELS[0]),
    "gaps": lambda m: m.gaps(MODELS[0], since=NOON, until=NOON + timedelta(hours=8)),
    "gaps of a series": lambda m: m.gaps(
        MODELS[0], "drift", "age", since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=8)
    ),
    "history": lambda m: list(m.history("drift", "age", model_name=MODELS[0])),
    "history_frame": lambda m: m.history_frame("drift", "age", model_name=MODELS[0]),
    "history_frame with metadata": lambda m: m.history_frame("drift", "age", model_name=MODELS[0], metadata=True),
    "history_frame in buckets": lambda m: m.history_frame("drift", "age", model_name=MODELS[0], every="1d"),
    "frame": lambda m: m.frame(model_name=MODELS[0]),
    "frame of a series": lambda m: m.frame("drift", "age", model_name=MODELS[0], limit=2),
    "frame in buckets": lambda m: m.frame(model_name=MODELS[0], every="1d"),
}
ALL_MODELS: dict[str, Callable[[Monitoring], Any]] = {
    "latest": lambda m: m.latest(),
    "latest of a type": lambda m: m.latest(metric_type="drift"),
    "series": lambda m: m.series(),
    "gaps": lambda m: m.gaps(since=NOON, until=NOON + timedelta(hours=8)),
    "frame": lambda m: m.frame(),
    "frame of two": lambda m: m.frame(model_name=MODELS[:2]),
    "frame in buckets": lambda m: m.frame(every="1d"),
}


def test_reads_of_one_model_go_to_its_shard(monitoring: Monitoring, plans: list[str]) -> None:
    for name, call in ONE_MODEL.items():
        plans.clear()
        assert len(call(monitoring)) > 0, name
        assert plans, name
        for plan in plans:
            assert plan.startswith("Custom Scan (Citus Adaptive)\n  Task Count: 1\n"), f"{name}: {plan}"
            assert "Distributed Subplan" not in plan, name


def test_reads_of_all_models_are_done_by_the_workers(
    monitoring: Monitoring, plans: list[str], over_two: Database
) -> None:
    shards = over_two.value("SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = 'monitoring_metrics'::regclass")
    for name, call in ALL_MODELS.items():
        plans.clear()
        assert len(call(monitoring)) > 0, name
        assert plans, name
        for plan in plans:
            # The catalogue's rows of two models are on one shard, or on two.
            assert name == "frame of two" or f"Task Count: {shards}\n" in plan, f"{name}: {plan}"
            assert "Distributed Subplan" not in plan, name


def test_reads_of_one_model_find_what_reads_of_all_do(monitoring: Monitoring) -> None:
    monitoring.expect("drift", "silent", model_name=MODELS[3], interval=timedelta(hours=1))
    times = {"since": NOON + timedelta(hours=1), "until": NOON + timedelta(hours=8)}
    every, gaps, series = monitoring.latest(), monitoring.gaps(**times), monitoring.series()
    frame = monitoring.frame(every="1d")
    assert len(every) == 2 * len(MODELS) + 1
    assert {state.model_name for state in every} == set(MODELS)
    for model in MODELS:
        assert [changed(state) for state in monitoring.latest(model)] == [
            changed(state) for state in every if state.model_name == model
        ]
        assert monitoring.gaps(model, **times) == [gap for gap in gaps if gap.model_name == model]
        assert monitoring.series(model) == [one for one in series if one.model_name == model]
        one = monitoring.frame(model_name=model, every="1d")
        assert one.to_dict("list") == frame[frame["model_name"] == model].to_dict("list")
    for width in (None, "1d"):
        assert monitoring.frame(model_name="nobody", every=width).empty


def changed(state: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(state).items() if name != "age"}


def test_rows_are_on_both_workers(monitoring: Monitoring, over_two: Database) -> None:
    assert len(monitoring.latest()) == 2 * len(MODELS)
    shards = over_two.query(
        "SELECT nodename, get_shard_id_for_distribution_column('monitoring_metrics', model)"
        "  FROM unnest(%s::text[]) AS model JOIN citus_shards"
        "    ON shardid = get_shard_id_for_distribution_column('monitoring_metrics', model)"
        " WHERE table_name = 'monitoring_metrics'::regclass",
        [MODELS],
    )
    assert len({node for node, _ in shards}) == 2
