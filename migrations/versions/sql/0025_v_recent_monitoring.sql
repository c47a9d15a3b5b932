-- The newest value of each series of the catalogue, with its age and health.
-- Of each series the primary key gives the two newest rows; no other row is read.
-- Revisions: 0025

CREATE OR REPLACE VIEW public.v_recent_monitoring AS
SELECT
    newest.id,
    newest.timestamp,
    series.model_name,
    series.metric_type,
    series.metric_name,
    newest.metric_value,
    newest.previous_value,
    CASE
        WHEN abs(newest.metric_value) < 8e307 AND abs(newest.previous_value) < 8e307
            THEN newest.metric_value - newest.previous_value
    END AS delta,
    CURRENT_TIMESTAMP - newest.timestamp AS age,
    series.expected_interval,
    coalesce(
        CURRENT_TIMESTAMP - newest.timestamp > series.expected_interval, series.expected_interval IS NOT NULL
    ) AS stale,
    series.lower_threshold,
    series.upper_threshold,
    CASE
        WHEN newest.id IS NULL THEN 'missing'
        WHEN CURRENT_TIMESTAMP - newest.timestamp > series.expected_interval THEN 'stale'
        WHEN newest.metric_value IS NULL THEN 'failed'
        WHEN newest.metric_value < series.lower_threshold THEN 'low'
        WHEN newest.metric_value > series.upper_threshold THEN 'high'
        WHEN newest.metadata -> 'drift_detected' = 'true' THEN 'drifted'
        ELSE 'ok'
    END AS health,
    newest.metadata,
    newest.created_at
FROM mlops_internal.metric_series AS series
LEFT JOIN LATERAL (
    SELECT two.*, lead(two.metric_value) OVER newest_first AS previous_value
    FROM (
        SELECT m.id, m.timestamp, m.metric_value, m.metadata, m.created_at
        FROM public.monitoring_metrics AS m
        WHERE m.model_name = series.model_name
            AND m.metric_type = series.metric_type
            AND m.metric_name = series.metric_name
        ORDER BY m.timestamp DESC, m.id DESC
        LIMIT 2
    ) AS two
    WINDOW newest_first AS (ORDER BY two.timestamp DESC, two.id DESC)
    ORDER BY two.timestamp DESC, two.id DESC
    LIMIT 1
) AS newest ON true
ORDER BY newest.timestamp DESC NULLS LAST, newest.id DESC, series.model_name, series.metric_type, series.metric_name;
