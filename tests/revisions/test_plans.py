"""How PostgreSQL answers the views when there is much: by index, and without looking into old months."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from support.copies import copy_of_head
from support.database import Database

Node = dict[str, Any]
MONTHS = 24
of_metrics = pytest.mark.plain_postgresql(
    reason="EXPLAIN shows the tasks of Citus; tests/citus/test_reads.py says which shards a query reads"
)


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


def months_of(nodes: list[Node]) -> set[str]:
    """The partitions of monitoring_metrics that a plan reads."""
    return {name for node in nodes if (name := node.get("Relation Name", "")).startswith("monitoring_metrics")}


@pytest.fixture(scope="module")
def filled(_head_template: Any) -> Iterator[Database]:
    """Two series, with rows in each of 24 months, the current one among them; a partition each."""
    with copy_of_head(_head_template, "mlops_test_plans") as database:
        fill(database)
        yield database


def fill(database: Database) -> None:
    database.query(f"""
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
        SELECT date_trunc('month', now(), 'UTC') - m * interval '1 month' + n * interval '1 minute', 'drift',
               'f' || n % 2, n
          FROM generate_series(0, {MONTHS - 1}) AS m, generate_series(1, 200) AS n
    """)
    database.query("CALL mlops_internal.maintain()")
    database.query("ANALYZE")


@pytest.fixture
def two_years(filled: Database) -> Iterator[Database]:
    """What the test changes is rolled back."""
    with filled.connection.transaction(force_rollback=True):
        yield filled


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


@of_metrics
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


@of_metrics
def test_a_series_that_fell_silent_is_looked_for_month_by_month(two_years: Database) -> None:
    two_years.query("""
        DELETE FROM monitoring_metrics
         WHERE metric_name = 'f1' AND timestamp >= date_trunc('month', now(), 'UTC') - interval '12 months'
    """)
    two_years.query("ANALYZE")

    answer = two_years.query("SELECT metric_name, metric_value, previous_value FROM v_recent_monitoring")

    assert answer == [("f0", 200.0, 198.0), ("f1", 199.0, 197.0)]


@of_metrics
def test_a_span_of_time_reads_its_own_months_only(two_years: Database) -> None:
    start = two_years.value("SELECT date_trunc('month', now(), 'UTC') - interval '7 months 3 days'")
    nodes = plan(
        two_years,
        "SELECT * FROM monitoring_metrics WHERE model_name = 'default' AND metric_type = 'drift' AND metric_name = 'f0'"
        f" AND timestamp >= '{start}' AND timestamp < '{start + timedelta(days=10)}'",
    )

    assert len([node for node in nodes if node.get("Relation Name", "").startswith("monitoring_metrics")]) == 2


SERIES = "model_name = 'default' AND metric_type = 'drift' AND metric_name = 'f0'"
# Ten days of the month before the last half year.
SINCE, UNTIL = (f"to_char(timezone('UTC', now()) - interval '7 months', 'YYYY-MM-{day} 00:00Z')" for day in (10, 20))
READER = """
CREATE ROLE mlops_test_reader;
GRANT USAGE ON SCHEMA reporting TO mlops_test_reader;
GRANT SELECT ON reporting.metric_history TO mlops_test_reader;
GRANT EXECUTE ON FUNCTION reporting.metric_daily TO mlops_test_reader;
SET LOCAL ROLE mlops_test_reader
"""
HISTORY = "SELECT timestamp, metric_value FROM reporting.metric_history WHERE timestamp >= {} AND timestamp < {} AND "
DAILY = "SELECT * FROM reporting.metric_daily({}, {}) WHERE "


@pytest.fixture
def by_index(two_years: Database) -> Database:
    """As of a large table: the rows here are so few that reading all would be quicker."""
    two_years.query("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
    return two_years


def assert_the_key_is_used(nodes: list[Node]) -> None:
    scans = [node for node in nodes if node.get("Relation Name") in months_of(nodes)]
    for scan in scans:
        assert scan["Node Type"] in {"Index Scan", "Index Only Scan"}
        columns = Counter(re.findall('model_name|metric_type|metric_name|timestamp(?=" [<>])', scan["Index Cond"]))
        assert columns == {"model_name": 1, "metric_type": 1, "metric_name": 1, "timestamp": 2}, scan["Index Cond"]


@of_metrics
@pytest.mark.parametrize("reader", [False, True], ids=["owner", "reader"])
@pytest.mark.parametrize("query", [HISTORY, DAILY], ids=["metric_history", "metric_daily"])
@pytest.mark.parametrize("bounds", ["literals", "parameters"])
def test_a_series_over_some_days_is_read_by_the_key_from_the_months_of_these_days(
    by_index: Database, query: str, bounds: str, *, reader: bool
) -> None:
    since, until = by_index.query(f"SELECT {SINCE}, {UNTIL}")[0]
    if reader:
        by_index.query(READER)
    if bounds == "literals":
        nodes = plan(by_index, query.format(f"timestamptz '{since}'", f"timestamptz '{until}'") + SERIES)
    else:
        by_index.query("SET LOCAL plan_cache_mode = force_generic_plan")
        by_index.query(f"PREPARE some_days (timestamptz, timestamptz) AS {query.format('$1', '$2')}{SERIES}")
        nodes = plan(by_index, f"EXECUTE some_days('{since}', '{until}')")
        by_index.query("DEALLOCATE some_days")

    assert months_of(nodes) == {f"monitoring_metrics_{since[:7].replace('-', '_')}"}
    assert_the_key_is_used(nodes)
    assert "Function Scan" not in {node["Node Type"] for node in nodes}, "it is inlined"
    assert of(nodes, "metric_series") == [], "nobody asked for bounds"


@of_metrics
@pytest.mark.parametrize("query", [HISTORY, DAILY], ids=["metric_history", "metric_daily"])
def test_the_last_days_are_read_from_the_newest_months(by_index: Database, query: str) -> None:
    expected = by_index.query("""
        SELECT DISTINCT 'monitoring_metrics_' || to_char(moment, 'YYYY_MM')
          FROM unnest(ARRAY[timezone('UTC', now() - interval '2 days'), timezone('UTC', now())]) AS moment
    """)

    nodes = plan(by_index, query.format("now() - interval '2 days'", "now()") + SERIES)

    assert months_of(nodes) == {name for (name,) in expected}
    assert_the_key_is_used(nodes)


@of_metrics
def test_all_series_over_some_days_are_read_from_the_months_of_these_days(two_years: Database) -> None:
    since, until = two_years.query(f"SELECT {SINCE}, {UNTIL}")[0]

    nodes = plan(two_years, DAILY.format(f"'{since}'", f"'{until}'") + "true")

    assert months_of(nodes) == {f"monitoring_metrics_{since[:7].replace('-', '_')}"}


@of_metrics
def test_the_bounds_of_a_series_come_from_the_catalogue(by_index: Database) -> None:
    since, until = by_index.query(f"SELECT {SINCE}, {UNTIL}")[0]
    every_column = HISTORY.replace("timestamp, metric_value", "*").format(f"'{since}'", f"'{until}'")

    nodes = plan(by_index, every_column + SERIES)

    (catalogue,) = of(nodes, "metric_series")
    assert "Index Cond" in catalogue
    assert len(months_of(nodes)) == 1
    assert_the_key_is_used(nodes)


@of_metrics
@pytest.mark.parametrize("view", ["v_model_timeline", "reporting.production_periods", "reporting.decision_gates"])
def test_a_view_of_one_model_reads_its_own_rows_only(head: Database, view: str) -> None:
    head.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, model_name, status, promoted_at)
        SELECT 'run-' || n, n, 'm' || n % 200, CASE WHEN n <= 200 THEN 'production' ELSE 'archived' END,
               now() - n * interval '1 hour'
          FROM generate_series(1, 4000) n
    """)
    head.query("""
        INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, model_name)
        SELECT promoted_at - interval '9 days', 'promote', mlflow_run_id, model_name FROM model_versions
    """)
    head.query("ANALYZE")
    if (
        view == "reporting.decision_gates"
    ):  # whose versions are found by their runs: a scan would be quicker, for so few
        head.query("SET enable_seqscan = off")

    nodes = plan(head, f"SELECT * FROM {view} WHERE model_name = 'm7'", analyze=True)

    read = [*of(nodes, "model_versions"), *of(nodes, "retraining_decisions")]
    assert {node["Relation Name"] for node in read} == {"model_versions", "retraining_decisions"}
    assert max(node["Actual Rows"] for node in read) <= 20
