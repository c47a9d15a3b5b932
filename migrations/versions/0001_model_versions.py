"""Create model_versions: the register of model versions.

Why: every version of the model that training hands over is registered here, with its MLflow run, its scores and its
    stage; the version in production is the row with status 'production'. The column types are the specification's.
Locks: none that anybody waits for: the table, its sequence and its two indexes are new. No row is scanned.
    Downgrade takes ACCESS EXCLUSIVE on model_versions for a moment, once its readers and writers are done.
Loss on downgrade: every row of model_versions.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("mlflow_run_id", sa.String(255), nullable=False),
        sa.Column("model_version", sa.String(50), nullable=False),
        sa.Column("status", sa.String(50)),
        sa.Column("f1_score", sa.Double),
        sa.Column("brier_score", sa.Double),
        sa.Column("created_at", sa.TIMESTAMP, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.Column("promoted_at", sa.TIMESTAMP),
        sa.PrimaryKeyConstraint("id", name="model_versions_pkey"),
        sa.UniqueConstraint("mlflow_run_id", name="model_versions_mlflow_run_id_key"),
    )


def downgrade() -> None:
    op.drop_table("model_versions")
