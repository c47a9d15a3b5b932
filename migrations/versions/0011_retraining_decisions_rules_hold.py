"""Verify that all rows of retraining_decisions keep the rules, and forbid NULL where it has no meaning.

Why: as in revision 0009. A decision without action or moment is none. NULL keeps its meaning in candidate_mlflow_run_id
    (the decision is about no candidate), gate_results (a first deployment passes no gates) and reasoning.
Locks: SHARE UPDATE EXCLUSIVE on retraining_decisions while its rows are read, then ACCESS EXCLUSIVE for a moment.
Loss on downgrade: nothing. The rules stay, for new rows; that PostgreSQL has verified the old ones is forgotten.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def of_years(column: str) -> str:
    """Whether a moment is one that Python, too, can hold: a single other one, and nobody can read the table there."""
    utc = f"timezone('UTC', {column})"  # a call, as AT TIME ZONE reads back differently from version to version
    return f"{utc} >= timestamp '0001-01-01' AND {utc} < timestamp '10000-01-01'"


NOT_VALID = {
    "action_check": "action::text IN ('promote', 'reject', 'pending')",
    "gate_results_check": "jsonb_typeof(gate_results) = 'object'",
    "decision_timestamp_check": of_years("decision_timestamp"),
    "created_at_check": of_years("created_at"),
    "not_null": "action IS NOT NULL AND decision_timestamp IS NOT NULL AND created_at IS NOT NULL",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    for rule in NOT_VALID:
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
    again = "".join(
        f", ADD CONSTRAINT retraining_decisions_{rule} CHECK ({condition}) NOT VALID"
        for rule, condition in NOT_VALID.items()
    )
    op.execute(
        f"""
        ALTER TABLE public.retraining_decisions
            DROP CONSTRAINT retraining_decisions_created_at_check,
            DROP CONSTRAINT retraining_decisions_decision_timestamp_check,
            DROP CONSTRAINT retraining_decisions_gate_results_check,
            DROP CONSTRAINT retraining_decisions_action_check,
            ALTER COLUMN created_at DROP NOT NULL,
            ALTER COLUMN decision_timestamp DROP NOT NULL,
            ALTER COLUMN action DROP NOT NULL{again}
        """
    )
