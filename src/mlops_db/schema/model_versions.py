"""Table model_versions: which versions of the model exist, and which one is in production."""

from sqlalchemy import Column, Integer, String, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, TIMESTAMP

from mlops_db.schema.base import metadata

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("mlflow_run_id", String(255), nullable=False),
    Column("model_version", String(50), nullable=False),
    Column("status", String(50)),
    Column("f1_score", DOUBLE_PRECISION),
    Column("brier_score", DOUBLE_PRECISION),
    Column("created_at", TIMESTAMP, server_default=text("CURRENT_TIMESTAMP")),
    Column("promoted_at", TIMESTAMP),
    UniqueConstraint("mlflow_run_id"),
)
