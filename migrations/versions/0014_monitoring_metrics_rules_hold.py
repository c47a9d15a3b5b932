"""Verify that all rows of monitoring_metrics keep the rules.

Why: as in revision 0008. The copy of the next revisions takes no row that breaks a rule.
Locks: SHARE UPDATE EXCLUSIVE on monitoring_metrics while its rows are read, which keeps nobody from reading or writing.
    Downgrade takes ACCESS EXCLUSIVE for a moment.
Loss on downgrade: nothing. The rules stay for new rows; PostgreSQL forgets that it has verified the old ones.
Running code: unaffected.
"""

from alembic import op

revision = "0014"
down_revision = "0013"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.validate_constraint("monitoring_metrics_rules_check", "monitoring_metrics", schema="public")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_wait_for_autovacuum.sql")
    op.execute("ALTER TABLE public.monitoring_metrics DROP CONSTRAINT monitoring_metrics_rules_check")
    op.execute_file("0013_rules.sql")
