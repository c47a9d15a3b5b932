-- Drop the table that goes: if the copy is complete the table that everybody used, otherwise the copy, and the log's
-- triggers with it.
-- Revisions: 0016 (downgrade), 0019

DROP VIEW mlops_internal.metrics_for_one_table, mlops_internal.metrics_for_months;

DROP TRIGGER IF EXISTS monitoring_metrics_register_updated_series ON public.monitoring_metrics;

DROP TRIGGER IF EXISTS monitoring_metrics_register_series ON public.monitoring_metrics;

DO $drop$
DECLARE
    copied record;
    logged regclass;
BEGIN
    SELECT * INTO STRICT copied FROM mlops_internal.table_copies;
    IF copied.copy_rows IS NOT NULL THEN
        ALTER SEQUENCE public.monitoring_metrics_id_seq OWNED BY NONE;
        EXECUTE format('DROP TABLE %s', copied.source::regclass);
        RETURN;
    END IF;
    EXECUTE format('DROP TABLE %s', copied.copy::regclass);
    DROP TRIGGER IF EXISTS monitoring_metrics_log_changes ON public.monitoring_metrics;
    -- Of months that were detached, too, but not of tables of others that have a trigger of this name.
    FOR logged IN SELECT tgrelid FROM pg_trigger
                   WHERE tgname = 'monitoring_metrics_log_truncate'
                     AND tgfoid = 'mlops_internal.log_metric_truncate()'::regprocedure LOOP
        EXECUTE format('DROP TRIGGER monitoring_metrics_log_truncate ON %s', logged);
    END LOOP;
    DROP INDEX IF EXISTS public.monitoring_metrics_id_idx;
END $drop$;
