"""Table monitoring_metrics: the measurements of monitoring (drift, coverage, performance), one row a value.

Partitioned by month. The partitions are in mlops_internal and not in the metadata, because the calendar and the rows
decide which ones there are. The catalogue of series, mlops_internal.metric_series, is not in the metadata either:
autogenerate does not compare it, `mlops-db check` does.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, PrimaryKeyConstraint, Table
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB

from mlops_db.schema.base import metadata, model_name_column, moment_column, of_years, text_column

monitoring_metrics = Table(
    "monitoring_metrics",
    metadata,
    Column(
        "id",
        BigInteger,
        autoincrement=True,
        comment="Counts the rows; of two with the same timestamp the greater one is the newer.",
    ),
    moment_column("timestamp", "The moment that the value is about."),
    text_column("metric_type", "The kind of metric: drift, coverage, performance and others."),
    text_column("metric_name", "The metric, such as a feature's drift score."),
    Column("metric_value", DOUBLE_PRECISION, comment="The value; NULL if it could not be computed."),
    Column("metadata", JSONB, comment="Details, whatever the writer found worth keeping."),
    moment_column("created_at", "When the row was written."),
    model_name_column("The model that was measured."),
    CheckConstraint(of_years("timestamp"), name="timestamp"),
    CheckConstraint(of_years("created_at"), name="created_at"),
    CheckConstraint("metric_value > '-Infinity' AND metric_value < 'Infinity'", name="metric_value"),
    # With the value in it, a history is read out of the index alone.
    PrimaryKeyConstraint(
        "model_name", "metric_type", "metric_name", "timestamp", "id", postgresql_include=["metric_value"]
    ),
    comment="What monitoring measured, one row a value; partitioned by month.",
    postgresql_partition_by="RANGE (timestamp)",
)
