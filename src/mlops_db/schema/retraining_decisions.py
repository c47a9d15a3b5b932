"""Table retraining_decisions: why each retraining candidate was promoted, rejected or left pending."""

from sqlalchemy import Boolean, CheckConstraint, Column, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from mlops_db.schema.base import metadata, model_name_column, moment_column, of_years, text_column
from mlops_db.schema.limits import ACTIONS

retraining_decisions = Table(
    "retraining_decisions",
    metadata,
    Column("id", Integer, primary_key=True, comment="Counts the decisions about all models."),
    moment_column("decision_timestamp", "When it was decided."),
    text_column("action", "What was decided: promote, reject or pending."),
    text_column(
        "candidate_mlflow_run_id",
        "The candidate's MLflow run, registered or not; NULL if it is about no candidate.",
        nullable=True,
    ),
    Column(
        "gate_results",
        JSONB,
        comment="One object, a key for each gate that ran; NULL if none did, as for a first deployment.",
    ),
    Column("reasoning", Text, comment="Why, in words."),
    moment_column("created_at", "When the decision was recorded."),
    model_name_column("The model that it is about."),
    Column(
        "is_rollback",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether a rollback made it: it rejects the version that goes, and promotes the one that comes back.",
    ),
    text_column(
        "decided_by",
        "Who decided: the session's login unless another was named; NULL before revision 0009.",
        nullable=True,
        server_default=text("SESSION_USER"),
    ),
    CheckConstraint(f"action::text IN {ACTIONS}", name="action"),
    CheckConstraint("jsonb_typeof(gate_results) = 'object'", name="gate_results"),
    CheckConstraint(of_years("decision_timestamp"), name="decision_timestamp"),
    CheckConstraint(of_years("created_at"), name="created_at"),
    Index("retraining_decisions_decision_timestamp_id_idx", "decision_timestamp", "id"),
    Index("retraining_decisions_model_name_decision_timestamp_id_idx", "model_name", "decision_timestamp", "id"),
    comment="Every decision about a retraining candidate, with the results of its gates.",
)
