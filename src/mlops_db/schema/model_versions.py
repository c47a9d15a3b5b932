"""Table model_versions: which versions of the models exist, and which one of each is in production."""

from sqlalchemy import CheckConstraint, Column, Index, Integer, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, TIMESTAMP

from mlops_db.schema.base import metadata, model_name_column, moment_column, of_years, text_column
from mlops_db.schema.limits import MAX_SCORE, MIN_SCORE, STATUSES

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", Integer, primary_key=True, comment="Counts the versions of all models."),
    text_column("mlflow_run_id", "The MLflow run that made the version."),
    text_column("model_version", "The version, as text: 10 sorts before 9."),
    text_column(
        "status", "Stage: staging, production (at most one of each model) or archived.", server_default="staging"
    ),
    Column("f1_score", DOUBLE_PRECISION, comment="F1 score, 0 to 1; NULL if it was not measured."),
    Column("brier_score", DOUBLE_PRECISION, comment="Brier score, 0 to 1, lower is better; NULL if not measured."),
    moment_column("created_at", "When the version was registered."),
    Column("promoted_at", TIMESTAMP(timezone=True), comment="When it was promoted last; NULL if never."),
    model_name_column("The model that it is a version of."),
    UniqueConstraint("mlflow_run_id"),
    CheckConstraint(f"status::text IN {STATUSES}", name="status"),
    CheckConstraint(f"f1_score BETWEEN {MIN_SCORE} AND {MAX_SCORE}", name="f1_score"),
    CheckConstraint(f"brier_score BETWEEN {MIN_SCORE} AND {MAX_SCORE}", name="brier_score"),
    CheckConstraint(of_years("created_at"), name="created_at"),
    CheckConstraint(of_years("promoted_at"), name="promoted_at"),
    Index("model_versions_production_key", "model_name", unique=True, postgresql_where=text("status = 'production'")),
    Index("model_versions_model_name_promoted_at_idx", "model_name", "promoted_at"),
    comment="The versions of every model: who made them, how good they are, and which one is in production.",
)
