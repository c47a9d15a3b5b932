"""How PostgreSQL answers the views when there is much: by index, and without looking into old months."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from support.database import Database

Node = dict[str, Any]
MONTHS = 24


def plan(database: Database, query: str, *, analyze: bool = False) -> list[Node]:
    """All nodes of a query's plan, the outer ones first."""
    options = "ANALYZE, TIMING off, FORMAT JSON" if analyze else "FORMAT JSON"
    return list(_nodes(database.value(f"EXPLAIN ({options}) {query}")[0]["Plan"]))


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def of(nodes: list[Node], relation: str) -> list[Node]:
    return [node for node in nodes if node.get("Relation Name") == relation]


@pytest.fixture
def two_years(head: Database) -> Database:
    """Two series, with rows in each of 24 months, the current one among them; a partition each."""
    head.query(f"""
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
        SELECT date_trunc('month', now(), 'UTC') - m * interval '1 month' + n * interval '1 minute', 'drift',
               'f' || n % 2, n
          FROM generate_series(0, {MONTHS - 1}) AS m, generate_series(1, 200) AS n
    """)
    head.query("CALL mlops_internal.maintain()")
    head.query("ANALYZE")
    return head


def test_the_ten_newest_decisions_are_read_from_the_index(head: Database) -> None:
    head.query("""
        INSERT INTO retraining_decisions (decision_timestamp, action, gate_results)
        SELECT now() - n * 7919 % 20000 * interval '1 minute', 'reject', '{"minimum_coverage": false}'
          FROM generate_series(1, 20000) AS n
    """)
    head.query("ANALYZE")

    nodes = plan(head, "SELECT * FROM v_decision_history LIMIT 10", analyze=True)

    (decisions,) = of(nodes, "retraining_decisions")
    assert decisions["Index Name"] == "retraining_decisions_decision_timestamp_id_idx"
    assert decisions["Scan Direction"] == "Backward"
    assert decisions["Actual Rows"] * decisions["Actual Loops"] == 10


def test_the_newest_row_of_a_series_is_found_without_looking_into_old_months(two_years: Database) -> None:
    partitions = [name for (name,) in two_years.query("SELECT partition FROM mlops_internal.metric_partitions()")]
    assert len(partitions) >= MONTHS + 3
    month = two_years.value("SELECT 'monitoring_metrics_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")

    nodes = plan(two_years, "SELECT * FROM v_recent_monitoring", analyze=True)

    executed = {name: sum(node["Actual Loops"] for node in of(nodes, name)) for name in partitions}
    assert executed[month] == 2, "once for each series"
    assert {name: loops for name, loops in executed.items() if name < month and loops} == {}
    assert "Merge Append" not in {node["Node Type"] for node in nodes}
    scans = [node for name in partitions for node in of(nodes, name)]
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Scan Backward"}
    (append,) = [node for node in nodes if node["Node Type"] == "Append"]
    assert append["Actual Rows"] == 2, "the two newest rows of each series"


def test_a_series_that_fell_silent_is_looked_for_month_by_month(two_years: Database) -> None:
    two_years.query("""
        DELETE FROM monitoring_metrics
         WHERE metric_name = 'f1' AND timestamp >= date_trunc('month', now(), 'UTC') - interval '12 months'
    """)
    two_years.query("ANALYZE")

    answer = two_years.query("SELECT metric_name, metric_value, previous_value FROM v_recent_monitoring")

    assert answer == [("f0", 200.0, 198.0), ("f1", 199.0, 197.0)]


def test_a_span_of_time_reads_its_own_months_only(two_years: Database) -> None:
    start = two_years.value("SELECT date_trunc('month', now(), 'UTC') - interval '7 months 3 days'")
    nodes = plan(
        two_years,
        "SELECT * FROM monitoring_metrics WHERE model_name = 'default' AND metric_type = 'drift' AND metric_name = 'f0'"
        f" AND timestamp >= '{start}' AND timestamp < '{start + timedelta(days=10)}'",
    )

    assert len([node for node in nodes if node.get("Relation Name", "").startswith("monitoring_metrics")]) == 2


def test_the_timeline_of_a_model_reads_its_own_rows_only(head: Database) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, model_name, status, promoted_at)
        SELECT 'run-' || n, n, 'm' || n % 200, 'archived', now() - n * interval '1 hour' FROM generate_series(1, 4000) n
    """)
    head.query("""
        INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, model_name)
        SELECT promoted_at - interval '9 days', 'promote', mlflow_run_id, model_name FROM model_versions
    """)
    head.query("ANALYZE")
    head.query("SET enable_seqscan = off")  # it would be quicker, for as few rows

    nodes = plan(head, "SELECT * FROM v_model_timeline WHERE model_name = 'm7'", analyze=True)

    read = [*of(nodes, "model_versions"), *of(nodes, "retraining_decisions")]
    assert len(read) >= 4
    assert max(node["Actual Rows"] for node in read) <= 20
