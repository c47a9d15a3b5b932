-- The rows of monitoring_metrics as the monthly table has them. The old timestamps were written in the time zone of
-- `-x legacy-timezone`, otherwise UTC; the view keeps it, so that a copy that is resumed goes on with the same.
-- metrics_for_one_table is the same for the way back, and has no row on this way.
-- Revisions: 0016

DO $views$
DECLARE
    zone constant text := coalesce(nullif(current_setting('mlops_db.legacy_timezone', true), ''), 'UTC');
BEGIN
    EXECUTE format($view$
        CREATE VIEW mlops_internal.metrics_for_months AS
        SELECT id, timezone(%1$L, timestamp) AS timestamp, metric_type, metric_name, metric_value, metadata,
               timezone(%1$L, created_at) AS created_at, model_name
          FROM public.monitoring_metrics
        $view$, zone);
    CREATE VIEW mlops_internal.metrics_for_one_table AS
        SELECT id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name
          FROM public.monitoring_metrics WHERE false;
END $views$;
