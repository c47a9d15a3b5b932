"""Verify that all rows of model_versions keep the rules, and forbid NULL in status and created_at.

Why: revision 0008 holds new rows to the rules; what reads the table may rely on them once the old rows are verified. A
    stage that is not known and a moment of creation that is not known have no meaning.
Locks: SHARE UPDATE EXCLUSIVE on model_versions while its rows are read, which keeps nobody from reading or writing;
    then ACCESS EXCLUSIVE for a moment: the constraint has shown that no row is NULL, so no row is read again (manual,
    "ALTER TABLE", SET NOT NULL).
Loss on downgrade: nothing. The rules stay, for new rows; that PostgreSQL has verified the old ones is forgotten.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def of_years(column: str) -> str:
    """Whether a moment is one that Python, too, can hold: a single other one, and nobody can read the table there."""
    utc = f"timezone('UTC', {column})"  # a call, as AT TIME ZONE reads back differently from version to version
    return f"{utc} >= timestamp '0001-01-01' AND {utc} < timestamp '10000-01-01'"


NOT_VALID = {
    "status_check": "status::text IN ('staging', 'production', 'archived')",
    "f1_score_check": "f1_score BETWEEN 0 AND 1",
    "brier_score_check": "brier_score BETWEEN 0 AND 1",
    "created_at_check": of_years("created_at"),
    "promoted_at_check": of_years("promoted_at"),
    "not_null": "status IS NOT NULL AND created_at IS NOT NULL",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    for rule in NOT_VALID:
        op.validate_constraint(f"model_versions_{rule}", "model_versions", schema="public")
    op.execute(
        """
        ALTER TABLE public.model_versions
            ALTER COLUMN status SET NOT NULL,
            ALTER COLUMN created_at SET NOT NULL,
            -- squawk-ignore ban-drop-constraint
            DROP CONSTRAINT model_versions_not_null
        """
    )


def downgrade() -> None:
    op.execute(SAFE_PATH)
    again = "".join(
        f", ADD CONSTRAINT model_versions_{rule} CHECK ({condition}) NOT VALID" for rule, condition in NOT_VALID.items()
    )
    op.execute(
        f"""
        ALTER TABLE public.model_versions
            DROP CONSTRAINT model_versions_promoted_at_check,
            DROP CONSTRAINT model_versions_created_at_check,
            DROP CONSTRAINT model_versions_brier_score_check,
            DROP CONSTRAINT model_versions_f1_score_check,
            DROP CONSTRAINT model_versions_status_check,
            ALTER COLUMN created_at DROP NOT NULL,
            ALTER COLUMN status DROP NOT NULL{again}
        """
    )
