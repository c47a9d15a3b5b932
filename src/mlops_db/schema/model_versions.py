"""Table model_versions: which versions of the models exist, and which one of each is in production."""

from sqlalchemy import CheckConstraint, Column, Index, Integer, String, Table, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, TIMESTAMP

from mlops_db.schema.base import metadata, of_years
from mlops_db.schema.limits import DEFAULT_MODEL, MAX_CHARACTERS, MAX_SCORE, MIN_SCORE, STATUSES

model_versions = Table(
    "model_versions",
    metadata,
    Column("id", Integer, primary_key=True, comment="Counts the versions of all models."),
    Column(
        "mlflow_run_id",
        String(MAX_CHARACTERS["mlflow_run_id"]),
        nullable=False,
        comment="The MLflow run that made the version.",
    ),
    Column(
        "model_version",
        String(MAX_CHARACTERS["model_version"]),
        nullable=False,
        comment="The version, as text: 10 sorts before 9.",
    ),
    Column(
        "status",
        String(MAX_CHARACTERS["status"]),
        nullable=False,
        server_default="staging",
        comment="Stage: staging, production (at most one of each model) or archived.",
    ),
    Column("f1_score", DOUBLE_PRECISION, comment="F1 score, 0 to 1; NULL if it was not measured."),
    Column("brier_score", DOUBLE_PRECISION, comment="Brier score, 0 to 1, lower is better; NULL if not measured."),
    Column(
        "created_at",
        TIMESTAMP(timezone=True),
        nullable=False,
        server_default=text("CURRENT_TIMESTAMP"),
        comment="When the version was registered.",
    ),
    Column("promoted_at", TIMESTAMP(timezone=True), comment="When it was promoted last; NULL if never."),
    Column(
        "model_name",
        String(MAX_CHARACTERS["model_name"]),
        nullable=False,
        server_default=DEFAULT_MODEL,
        comment="The model that it is a version of.",
    ),
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
