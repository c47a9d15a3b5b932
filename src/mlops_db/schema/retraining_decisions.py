"""Table retraining_decisions: why each retraining candidate was promoted, rejected or left pending."""

from sqlalchemy import Boolean, CheckConstraint, Column, Index, Integer, String, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from mlops_db.schema.base import metadata, of_years
from mlops_db.schema.limits import ACTIONS, DEFAULT_MODEL, MAX_CHARACTERS

retraining_decisions = Table(
    "retraining_decisions",
    metadata,
    Column("id", Integer, primary_key=True, comment="Counts the decisions about all models."),
    Column(
        "decision_timestamp",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=text("CURRENT_TIMESTAMP"),
        comment="When it was decided.",
    ),
    Column(
        "action",
        String(MAX_CHARACTERS["action"]),
        nullable=False,
        comment="What was decided: promote, reject or pending.",
    ),
    Column(
        "candidate_mlflow_run_id",
        String(MAX_CHARACTERS["candidate_mlflow_run_id"]),
        comment="The candidate's MLflow run, registered or not; NULL if it is about no candidate.",
    ),
    Column(
        "gate_results",
        JSONB,
        comment="One object, a key for each gate that ran; NULL if none did, as for a first deployment.",
    ),
    Column("reasoning", Text, comment="Why, in words."),
    Column(
        "created_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=text("CURRENT_TIMESTAMP"),
        comment="When the decision was recorded.",
    ),
    Column(
        "model_name",
        String(MAX_CHARACTERS["model_name"]),
        nullable=False,
        server_default=DEFAULT_MODEL,
        comment="The model that it is about.",
    ),
    Column(
        "is_rollback",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether a rollback made it: it rejects the version that goes, and promotes the one that comes back.",
    ),
    Column(
        "decided_by",
        String(MAX_CHARACTERS["decided_by"]),
        server_default=text("SESSION_USER"),
        comment="Who decided: the session's login unless another was named; NULL before revision 0010.",
    ),
    CheckConstraint(f"action::text IN {ACTIONS}", name="action"),
    CheckConstraint("jsonb_typeof(gate_results) = 'object'", name="gate_results"),
    CheckConstraint(of_years("decision_timestamp"), name="decision_timestamp"),
    CheckConstraint(of_years("created_at"), name="created_at"),
    Index("retraining_decisions_decision_timestamp_id_idx", "decision_timestamp", "id"),
    Index("retraining_decisions_model_name_decision_timestamp_id_idx", "model_name", "decision_timestamp", "id"),
    comment="Every decision about a retraining candidate, with the results of its gates.",
)
