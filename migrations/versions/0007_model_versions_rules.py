"""Hold new rows of model_versions to the specification's values, and give them a model name.

Why: the specification lists three stages, and scores are shares. A misspelled stage hides a version from everybody who
    asks for 'production'; one NaN makes every average NaN; one moment that Python cannot hold, such as infinity, makes
    every reader in Python fail. With a model name several models can live side by side; code that does not know the
    name uses the model 'default'.
Locks: ACCESS SHARE on model_versions while its rows are read for the findings, then ACCESS EXCLUSIVE for a moment: the
    column's default is a constant, and the rules are NOT VALID, so no row is read or written under that lock.
Loss on downgrade: the model names.
Running code: breaks: writes of another status, of a score that is no share, of a year before 1 or after 9999, and of
    NULL in status or created_at.

If rows break a rule, the revision stops before it changes anything. Its message names the rules, the first ten rows of
each, and the query that finds all of them. Revision 0008 has PostgreSQL verify the old rows.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# What breaks each rule. `mlops-db adopt` reads it, too.
TABLE = "model_versions"
BROKEN = {
    "status is not staging, production or archived": "status IS NULL"
    " OR status NOT IN ('staging', 'production', 'archived')",
    "f1_score is not within 0 and 1": "NOT f1_score BETWEEN 0 AND 1",  # NaN sorts above all numbers
    "brier_score is not within 0 and 1": "NOT brier_score BETWEEN 0 AND 1",
    "created_at is NULL or not of the years 1 to 9999": """created_at IS NULL OR NOT (timezone('UTC', created_at) >= timestamp '0001-01-01' AND timezone('UTC', created_at) < timestamp '10000-01-01')""",
    "promoted_at is not of the years 1 to 9999": """NOT (timezone('UTC', promoted_at) >= timestamp '0001-01-01' AND timezone('UTC', promoted_at) < timestamp '10000-01-01')""",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.stop_if_broken(TABLE, BROKEN, revision=revision)
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.model_versions ADD COLUMN model_name varchar(255) NOT NULL DEFAULT 'default'
        """
    )
    op.execute_file("0007_rules.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(
        """
        ALTER TABLE public.model_versions
            DROP CONSTRAINT model_versions_not_null,
            DROP CONSTRAINT model_versions_promoted_at_check,
            DROP CONSTRAINT model_versions_created_at_check,
            DROP CONSTRAINT model_versions_brier_score_check,
            DROP CONSTRAINT model_versions_f1_score_check,
            DROP CONSTRAINT model_versions_status_check,
            ALTER COLUMN status DROP DEFAULT
        """
    )
    op.drop_column("model_versions", "model_name", schema="public")
