-- Let the copy take the place of the table that is gone; then nothing of the copy is left.
-- Revisions: 0016 (downgrade), 0019

DO $swap$
BEGIN
    IF to_regclass('public.monitoring_metrics') IS NULL THEN
        -- Renamed first: others may have a public.monitoring_metrics_copy.
        ALTER TABLE mlops_internal.monitoring_metrics_copy RENAME TO monitoring_metrics;
        -- squawk-ignore ban-set-schema
        ALTER TABLE mlops_internal.monitoring_metrics SET SCHEMA public;
        EXECUTE format('ALTER SEQUENCE public.monitoring_metrics_id_seq AS %s OWNED BY public.monitoring_metrics.id',
                       (SELECT format_type(atttypid, NULL) FROM pg_attribute
                         WHERE attrelid = 'public.monitoring_metrics'::regclass AND attname = 'id'));
    END IF;
END $swap$;

-- squawk-ignore ban-drop-table
DROP TABLE mlops_internal.table_copies, mlops_internal.monitoring_metrics_changes;

-- squawk-ignore ban-drop-function
DROP FUNCTION mlops_internal.replay_metric_changes();

-- squawk-ignore ban-drop-function
DROP FUNCTION mlops_internal.log_metric_changes();

-- squawk-ignore ban-drop-function
DROP FUNCTION mlops_internal.log_metric_truncate();
