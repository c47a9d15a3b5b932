"""Verify that all rows of retraining_decisions keep the rules, and forbid NULL where it has no meaning.

Why: as in revision 0008. A decision without action or moment is none. NULL keeps its meaning in candidate_mlflow_run_id
    (the decision is about no candidate), gate_results (a first deployment passes no gates) and reasoning.
Locks: SHARE UPDATE EXCLUSIVE on retraining_decisions while its rows are read, then ACCESS EXCLUSIVE for a moment.
Loss on downgrade: nothing. The rules stay for new rows; PostgreSQL forgets that it has verified the old ones.
Running code: unaffected. Revision 0009 refuses such rows already.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    for rule in ("action_check", "gate_results_check", "decision_timestamp_check", "created_at_check", "not_null"):
        op.validate_constraint(f"retraining_decisions_{rule}", "retraining_decisions", schema="public")
    op.execute(
        """
        ALTER TABLE public.retraining_decisions
            ALTER COLUMN action SET NOT NULL,
            ALTER COLUMN decision_timestamp SET NOT NULL,
            ALTER COLUMN created_at SET NOT NULL,
            -- squawk-ignore ban-drop-constraint
            DROP CONSTRAINT retraining_decisions_not_null
        """
    )


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0010_rules_not_valid.sql")
