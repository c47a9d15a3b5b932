-- Log the rows that anybody changes. The functions run with the rights of their owner, so writers need no other grant.
-- Revisions: 0016

DO $functions$
DECLARE
    zone constant text := coalesce(nullif(current_setting('mlops_db.legacy_timezone', true), ''), 'UTC');
BEGIN
    EXECUTE format($create$
        CREATE FUNCTION mlops_internal.log_metric_changes() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        BEGIN
            IF TG_OP IN ('UPDATE', 'DELETE') THEN
                INSERT INTO mlops_internal.monitoring_metrics_changes
                       (change, model_name, metric_type, metric_name, timestamp, metric_id)
                VALUES (-1, OLD.model_name, OLD.metric_type, OLD.metric_name, timezone(%1$L, OLD.timestamp), OLD.id);
            END IF;
            IF TG_OP IN ('INSERT', 'UPDATE') THEN
                INSERT INTO mlops_internal.monitoring_metrics_changes
                       (change, model_name, metric_type, metric_name, timestamp, metric_id)
                VALUES (1, NEW.model_name, NEW.metric_type, NEW.metric_name, timezone(%1$L, NEW.timestamp), NEW.id);
            END IF;
            RETURN NULL;
        END
        $function$
        $create$, zone);
END $functions$;

REVOKE EXECUTE ON FUNCTION mlops_internal.log_metric_changes() FROM PUBLIC;

CREATE FUNCTION mlops_internal.log_metric_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off
AS $function$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE object_in_use USING
            MESSAGE = 'monitoring_metrics is being copied, and TRUNCATE at this isolation level may not see all rows that go',
            HINT = 'Use READ COMMITTED or DELETE, or wait until the migration is done.';
    END IF;
    INSERT INTO mlops_internal.monitoring_metrics_changes
           (change, model_name, metric_type, metric_name, timestamp, metric_id)
    SELECT -1, model_name, metric_type, metric_name, timestamp, id FROM mlops_internal.metrics_for_months;
    RETURN NULL;
END
$function$;

REVOKE EXECUTE ON FUNCTION mlops_internal.log_metric_truncate() FROM PUBLIC;

CREATE TRIGGER monitoring_metrics_log_changes AFTER INSERT OR UPDATE OR DELETE ON public.monitoring_metrics
    FOR EACH ROW EXECUTE FUNCTION mlops_internal.log_metric_changes();

CREATE TRIGGER monitoring_metrics_log_truncate BEFORE TRUNCATE ON public.monitoring_metrics
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.log_metric_truncate();

-- ALWAYS: also for rows that logical replication applies.
ALTER TABLE public.monitoring_metrics
    ENABLE ALWAYS TRIGGER monitoring_metrics_log_changes,
    ENABLE ALWAYS TRIGGER monitoring_metrics_log_truncate;
