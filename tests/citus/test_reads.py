"""Reads go to the node that has the rows."""

from datetime import datetime, timezone

from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database


def test_rows_come_back_from_the_workers(over_two: Database) -> None:
    with DatabaseManager(over_two.settings) as db:
        moment = datetime(2026, 11, 1, tzinfo=timezone.utc)
        rows = [
            {"metric_type": "drift", "metric_name": "age", "metric_value": i, "model_name": f"model {i}"}
            for i in range(40)
        ]
        assert db.monitoring.log_many(rows, replace=moment).replaced == 0
        assert db.monitoring.log_many(rows, replace=moment).replaced == 40
        assert len(db.monitoring.latest()) == 40
    places = over_two.query(
        "SELECT nodename, count(*) FROM citus_shards WHERE table_name = 'monitoring_metrics'::regclass GROUP BY 1"
    )
    assert len(places) == 2
