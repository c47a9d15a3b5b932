"""Table monitoring_metrics: what monitoring measured (drift, coverage, performance), one row a value.

Partitioned by month. The partitions are in mlops_internal and are no part of the metadata: which there are depends on
the calendar and on the rows. So is the catalogue of series, mlops_internal.metric_series, which autogenerate does not
look at; `mlops-db check` does.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, PrimaryKeyConstraint, String, Table, text
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB, TIMESTAMP

from mlops_db.schema.base import metadata, of_years
from mlops_db.schema.limits import DEFAULT_MODEL, MAX_CHARACTERS

monitoring_metrics = Table(
    "monitoring_metrics",
    metadata,
    Column(
        "id",
        BigInteger,
        autoincrement=True,
        comment="Counts the rows; of two with the same timestamp the greater one is the newer.",
    ),
    Column(
        "timestamp",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=text("CURRENT_TIMESTAMP"),
        comment="The moment that the value is about.",
    ),
    Column(
        "metric_type",
        String(MAX_CHARACTERS["metric_type"]),
        nullable=False,
        comment="The kind of metric: drift, coverage, performance and others.",
    ),
    Column(
        "metric_name",
        String(MAX_CHARACTERS["metric_name"]),
        nullable=False,
        comment="The metric, such as a feature's drift score.",
    ),
    Column("metric_value", DOUBLE_PRECISION, comment="The value; NULL if it could not be computed."),
    Column("metadata", JSONB, comment="Details, whatever the writer found worth keeping."),
    Column(
        "created_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=text("CURRENT_TIMESTAMP"),
        comment="When the row was written.",
    ),
    Column(
        "model_name",
        String(MAX_CHARACTERS["model_name"]),
        nullable=False,
        server_default=DEFAULT_MODEL,
        comment="The model that was measured.",
    ),
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
