"""Register the series of the metrics that are there already.

Why: the trigger of revision 0014 sees new rows only. After it, not in it: what is read here takes seconds per million
    rows, and creating the trigger keeps writers out until its transaction ends.
Locks: ACCESS SHARE on monitoring_metrics while all of its rows are read, and ROW EXCLUSIVE on metric_series: nobody
    waits but who registers one of the same series.
Loss on downgrade: nothing; the catalogue stays as it is, and goes with revision 0014.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# A run takes it from `-x statement-timeout`, if that is given.
LONG_TIMEOUT = """
SELECT set_config('statement_timeout',
                  coalesce(nullif(current_setting('mlops_db.long_statement_timeout', true), ''), '6h'), true)
"""


def upgrade() -> None:
    op.execute(SAFE_PATH)
    # Reading millions of rows takes longer than a statement of a revision usually may.
    op.execute(LONG_TIMEOUT)
    op.execute(
        """
        INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name)
        SELECT DISTINCT model_name, metric_type, metric_name FROM public.monitoring_metrics
         WHERE metric_type IS NOT NULL AND metric_name IS NOT NULL
            ON CONFLICT DO NOTHING
        """
    )


def downgrade() -> None:
    """Nothing to take back: a series that is registered once more is the same."""
