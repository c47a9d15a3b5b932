"""Create retraining_decisions: why candidates were promoted or rejected.

Why: the evaluation gate writes one row for each candidate: what was decided, the results of its gates as JSON, and the
    reasoning. A candidate need not be registered, so there is no foreign key to model_versions.
Locks: none that anybody waits for: the table, its sequence and its index are new. No row is scanned.
    Downgrade takes ACCESS EXCLUSIVE on retraining_decisions for a moment, once its readers and writers are done.
Loss on downgrade: every row of retraining_decisions.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "retraining_decisions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("decision_timestamp", sa.TIMESTAMP, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.Column("action", sa.String(50)),
        sa.Column("candidate_mlflow_run_id", sa.String(255)),
        sa.Column("gate_results", postgresql.JSONB),
        sa.Column("reasoning", sa.Text),
        sa.Column("created_at", sa.TIMESTAMP, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.PrimaryKeyConstraint("id", name="retraining_decisions_pkey"),
    )


def downgrade() -> None:
    op.drop_table("retraining_decisions")
