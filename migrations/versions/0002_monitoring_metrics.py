"""Create monitoring_metrics: what monitoring measured.

Why: drift, coverage and performance checks log one row a value here, with their details as JSON. The column types are
    the specification's, the 32-bit id among them.
Locks: none that anybody waits for: the table, its sequence and its index are new. No row is scanned.
    Downgrade takes ACCESS EXCLUSIVE on monitoring_metrics for a moment, once its readers and writers are done.
Loss on downgrade: every row of monitoring_metrics.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "monitoring_metrics",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("timestamp", sa.TIMESTAMP, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.Column("metric_type", sa.String(100)),
        sa.Column("metric_name", sa.String(255)),
        sa.Column("metric_value", sa.Double),
        sa.Column("metadata", postgresql.JSONB),
        sa.Column("created_at", sa.TIMESTAMP, server_default=sa.text("CURRENT_TIMESTAMP")),
        sa.PrimaryKeyConstraint("id", name="monitoring_metrics_pkey"),
    )


def downgrade() -> None:
    op.drop_table("monitoring_metrics")
