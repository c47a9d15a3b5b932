"""Hold new rows of monitoring_metrics to clean values, and give them a model name.

Why: a value that is NaN or infinite spoils every average; a row without series or moment answers no question. NULL as a
    value means that it could not be computed. The model name is that of revision 0007.
Locks: ACCESS SHARE on monitoring_metrics while its rows are read for the findings, then ACCESS EXCLUSIVE for a moment,
    in which no row is read or written.
Loss on downgrade: the model names.
Running code: breaks: metrics without a series or a moment, with a value that is NaN or infinite, or with a year before
    1 or after 9999.

A row that breaks a rule stops the revision, as in revision 0007. The timestamps get their time zone in revision 0019.
"""

from alembic import op

revision = "0013"
down_revision = "0012"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# What breaks each rule. `mlops-db adopt` reads it, too.
TABLE = "monitoring_metrics"
BROKEN = {
    "metric_type is NULL": "metric_type IS NULL",
    "metric_name is NULL": "metric_name IS NULL",
    "metric_value is NaN or infinite": "metric_value IN ('NaN', 'Infinity', '-Infinity')",
    "timestamp is NULL or not of the years 1 to 9999": "timestamp IS NULL"
    " OR NOT (timestamp >= timestamp '0001-01-01' AND timestamp < timestamp '10000-01-01')",
    "created_at is NULL or not of the years 1 to 9999": "created_at IS NULL"
    " OR NOT (created_at >= timestamp '0001-01-01' AND created_at < timestamp '10000-01-01')",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_long_statement_timeout.sql")
    op.stop_if_broken(TABLE, BROKEN, revision=revision)
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.monitoring_metrics ADD COLUMN model_name varchar(255) NOT NULL DEFAULT 'default'
        """
    )
    op.execute_file("0013_rules.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_wait_for_autovacuum.sql")
    op.execute("ALTER TABLE public.monitoring_metrics DROP CONSTRAINT monitoring_metrics_rules_check")
    op.drop_column("monitoring_metrics", "model_name", schema="public")
