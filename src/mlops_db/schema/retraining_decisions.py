"""Table retraining_decisions: why each retraining candidate was promoted, rejected or left pending."""

from sqlalchemy import Column, Integer, String, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from mlops_db.schema.base import metadata

retraining_decisions = Table(
    "retraining_decisions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("decision_timestamp", TIMESTAMP, server_default=text("CURRENT_TIMESTAMP")),
    Column("action", String(50)),
    Column("candidate_mlflow_run_id", String(255)),
    Column("gate_results", JSONB),
    Column("reasoning", Text),
    Column("created_at", TIMESTAMP, server_default=text("CURRENT_TIMESTAMP")),
)
