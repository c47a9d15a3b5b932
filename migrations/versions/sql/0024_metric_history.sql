-- Every measured value, with its bounds and its state. It has no order of its own: filters on model, series and time
-- reach the primary key and leave out months.
-- Revisions: 0024

CREATE VIEW reporting.metric_history AS
SELECT
    m.timestamp,
    m.model_name,
    m.metric_type,
    m.metric_name,
    m.metric_value,
    series.lower_threshold,
    series.upper_threshold,
    m.own_threshold,
    m.drifted = (m.metric_value < m.own_threshold) AS low_is_drift,
    CASE
        WHEN m.metric_value IS NULL THEN 'failed'
        WHEN m.metric_value < series.lower_threshold THEN 'low'
        WHEN m.metric_value > series.upper_threshold THEN 'high'
        WHEN m.drifted THEN 'drifted'
        ELSE 'ok'
    END AS state,
    m.metadata,
    m.id
FROM (
    SELECT
        *,
        -- Only a JSON boolean says whether it drifted.
        CASE metadata -> 'drift_detected' WHEN 'true' THEN true WHEN 'false' THEN false END AS drifted,
        -- What a double cannot hold is no threshold.
        CASE
            WHEN jsonb_typeof(metadata -> 'threshold') = 'number'
                AND abs((metadata -> 'threshold')::numeric) < 1e308
                -- Quicker than round(): it would write 300 digits.
                THEN CASE
                    WHEN abs((metadata -> 'threshold')::numeric) >= 1e-300
                        THEN (metadata -> 'threshold')::double precision
                    ELSE 0
                END
        END AS own_threshold
    FROM public.monitoring_metrics
) AS m
LEFT JOIN mlops_internal.metric_series AS series
    ON series.model_name = m.model_name
    AND series.metric_type = m.metric_type
    AND series.metric_name = m.metric_name;
