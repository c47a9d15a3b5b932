"""Give the timestamps of monitoring_metrics a time zone.

Why: as in revision 0005.
Locks: ACCESS EXCLUSIVE on monitoring_metrics and v_recent_monitoring, for a moment; with -x legacy-timezone for the
    time of a rewrite, some 2 seconds per million rows (docs/scaling.md).
Loss on downgrade: the time zone, as in revision 0005.

v_recent_monitoring takes the age against the clock instead of against the UTC clock; apart from that it is as it was.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# A run takes it from `-x statement-timeout`, if that is given.
LONG_TIMEOUT = """
SELECT set_config('statement_timeout',
                  coalesce(nullif(current_setting('mlops_db.long_statement_timeout', true), ''), '6h'), true)
"""

# The zone that the old rows were written in: a run takes it from `-x legacy-timezone`, and is in UTC without it.
ZONE = """
SELECT set_config('TimeZone', coalesce(nullif(current_setting('mlops_db.legacy_timezone', true), ''), 'UTC'), true)
"""

V_RECENT_MONITORING = """
CREATE VIEW public.v_recent_monitoring AS
SELECT
    id,
    timestamp,
    metric_type,
    metric_name,
    metric_value,
    previous_value,
    metric_value - previous_value AS delta,
    CASE WHEN isfinite(timestamp) THEN CURRENT_TIMESTAMP - timestamp END AS age,
    metadata,
    created_at
FROM (
    SELECT
        m.*,
        lead(m.metric_value) OVER newest_first AS previous_value,
        row_number() OVER newest_first AS recency
    FROM public.monitoring_metrics AS m
    WINDOW newest_first AS (
        PARTITION BY m.metric_type, m.metric_name ORDER BY m.timestamp DESC NULLS LAST, m.id DESC
    )
) AS series
WHERE recency = 1
ORDER BY timestamp DESC NULLS LAST, id DESC
"""

V_RECENT_MONITORING_0004 = """
CREATE VIEW public.v_recent_monitoring AS
SELECT
    id,
    timestamp,
    metric_type,
    metric_name,
    metric_value,
    previous_value,
    metric_value - previous_value AS delta,
    CASE WHEN isfinite(timestamp) THEN (CURRENT_TIMESTAMP AT TIME ZONE 'UTC') - timestamp END AS age,
    metadata,
    created_at
FROM (
    SELECT
        m.*,
        lead(m.metric_value) OVER newest_first AS previous_value,
        row_number() OVER newest_first AS recency
    FROM public.monitoring_metrics AS m
    WINDOW newest_first AS (
        PARTITION BY m.metric_type, m.metric_name ORDER BY m.timestamp DESC NULLS LAST, m.id DESC
    )
) AS series
WHERE recency = 1
ORDER BY timestamp DESC NULLS LAST, id DESC
"""


def upgrade() -> None:
    convert("timestamptz", V_RECENT_MONITORING)


def downgrade() -> None:
    convert("timestamp", V_RECENT_MONITORING_0004)


def convert(type_: str, view: str) -> None:
    op.execute(SAFE_PATH)
    op.execute("DROP VIEW public.v_recent_monitoring")
    # A rewrite takes longer than a statement of a revision usually may.
    op.execute(LONG_TIMEOUT)
    op.execute(ZONE)
    op.execute(
        f"""
        ALTER TABLE public.monitoring_metrics
            -- squawk-ignore changing-column-type
            ALTER COLUMN timestamp TYPE {type_},
            -- squawk-ignore changing-column-type
            ALTER COLUMN created_at TYPE {type_}
        """
    )
    op.execute(view)
