"""Hold new rows of retraining_decisions to the specification's values, and record their model and who decided.

Why: the specification lists three actions, and gate results are one JSON object; no view counts anything else. The
    years and the model name are those of revision 0007. A rollback records a reject and a promote; is_rollback marks
    them. decided_by is the session's login, unless the writer gives another name.
Locks: ACCESS SHARE on retraining_decisions while its rows are read for the findings, then ACCESS EXCLUSIVE for a
    moment, in which no row is read or written.
Loss on downgrade: the model names, which decisions were rollbacks, and who decided.
Running code: breaks: decisions with another action or none, with gate results that are no JSON object, or without a
    moment in the years 1 to 9999.

A row that breaks a rule stops the revision, as in revision 0007. Nobody knows who made the old decisions. So decided_by
is added without a default: with one, all of them would get the login that runs the revision.
"""

from alembic import op

revision = "0009"
down_revision = "0008"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# What breaks each rule. `mlops-db adopt` reads it, too.
TABLE = "retraining_decisions"
BROKEN = {
    "action is not promote, reject or pending": "action IS NULL OR action NOT IN ('promote', 'reject', 'pending')",
    "gate_results is not an object": "jsonb_typeof(gate_results) <> 'object'",
    "decision_timestamp is NULL or not of the years 1 to 9999": """decision_timestamp IS NULL OR NOT (timezone('UTC', decision_timestamp) >= timestamp '0001-01-01' AND timezone('UTC', decision_timestamp) < timestamp '10000-01-01')""",
    "created_at is NULL or not of the years 1 to 9999": """created_at IS NULL OR NOT (timezone('UTC', created_at) >= timestamp '0001-01-01' AND timezone('UTC', created_at) < timestamp '10000-01-01')""",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.stop_if_broken(TABLE, BROKEN, revision=revision)
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.retraining_decisions ADD COLUMN model_name varchar(255) NOT NULL DEFAULT 'default'
        """
    )
    op.execute("ALTER TABLE public.retraining_decisions ADD COLUMN is_rollback boolean NOT NULL DEFAULT false")
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.retraining_decisions ADD COLUMN decided_by varchar(255)
        """
    )
    op.execute("ALTER TABLE public.retraining_decisions ALTER COLUMN decided_by SET DEFAULT session_user")
    op.execute_file("0009_rules.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(
        """
        ALTER TABLE public.retraining_decisions
            DROP CONSTRAINT retraining_decisions_not_null,
            DROP CONSTRAINT retraining_decisions_created_at_check,
            DROP CONSTRAINT retraining_decisions_decision_timestamp_check,
            DROP CONSTRAINT retraining_decisions_gate_results_check,
            DROP CONSTRAINT retraining_decisions_action_check
        """
    )
    for column in ("decided_by", "is_rollback", "model_name"):
        op.drop_column("retraining_decisions", column, schema="public")
