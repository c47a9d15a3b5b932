"""Verify that all rows of model_versions keep the rules, and forbid NULL in status and created_at.

Why: revision 0007 holds new rows to the rules. Readers of the table may rely on them once the old rows are verified. An
    unknown stage and an unknown moment of creation have no meaning.
Locks: SHARE UPDATE EXCLUSIVE on model_versions while its rows are read, which keeps nobody from reading or writing;
    then ACCESS EXCLUSIVE for a moment: the constraint has shown that no row is NULL, so no row is read again (manual,
    "ALTER TABLE", SET NOT NULL).
Loss on downgrade: nothing. The rules stay for new rows; PostgreSQL forgets that it has verified the old ones.
Running code: unaffected. Revision 0007 refuses such rows already.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    for rule in (
        "status_check",
        "f1_score_check",
        "brier_score_check",
        "created_at_check",
        "promoted_at_check",
        "not_null",
    ):
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
    op.execute_file("0008_rules_not_valid.sql")
