-- The newest value of each series: the view of revision 0004, with moments, and with the table's columns by name.
-- Revisions: 0019, 0022 (downgrade)

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
        m.id,
        m.timestamp,
        m.metric_type,
        m.metric_name,
        m.metric_value,
        m.metadata,
        m.created_at,
        lead(m.metric_value) OVER newest_first AS previous_value,
        row_number() OVER newest_first AS recency
    FROM public.monitoring_metrics AS m
    WINDOW newest_first AS (
        PARTITION BY m.metric_type, m.metric_name ORDER BY m.timestamp DESC NULLS LAST, m.id DESC
    )
) AS series
WHERE recency = 1
ORDER BY timestamp DESC NULLS LAST, id DESC;
