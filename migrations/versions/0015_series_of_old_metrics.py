"""Register the series of the metrics that are there already.

Why: the trigger of revision 0014 sees new rows only. This is a revision after it because it reads for seconds per
    million rows, and creating the trigger keeps writers out until its transaction ends.
Locks: ACCESS SHARE on monitoring_metrics while all of its rows are read, and ROW EXCLUSIVE on metric_series: only a
    session that registers one of the same series waits.
Loss on downgrade: nothing; the catalogue stays as it is, and goes with revision 0014.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0007_long_statement_timeout.sql")
    op.execute(
        """
        INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name)
        SELECT DISTINCT model_name, metric_type, metric_name FROM public.monitoring_metrics
         WHERE metric_type IS NOT NULL AND metric_name IS NOT NULL
            ON CONFLICT DO NOTHING
        """
    )


def downgrade() -> None:
    """Nothing to take back: registering a series again changes nothing."""
