"""Table monitoring_metrics: what monitoring measured (drift, coverage, performance), one row a value."""

from sqlalchemy import Column, Integer, String, Table, text
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB, TIMESTAMP

from mlops_db.schema.base import metadata

monitoring_metrics = Table(
    "monitoring_metrics",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("timestamp", TIMESTAMP, server_default=text("CURRENT_TIMESTAMP")),
    Column("metric_type", String(100)),
    Column("metric_name", String(255)),
    Column("metric_value", DOUBLE_PRECISION),
    Column("metadata", JSONB),
    Column("created_at", TIMESTAMP, server_default=text("CURRENT_TIMESTAMP")),
)
