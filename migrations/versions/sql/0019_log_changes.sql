-- Log the rows that anybody changes, also in a partition directly. The functions run with the rights of their owner, so
-- writers need no other grant.
-- Revisions: 0019 (downgrade)

CREATE FUNCTION mlops_internal.log_metric_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        INSERT INTO mlops_internal.monitoring_metrics_changes
               (change, model_name, metric_type, metric_name, timestamp, metric_id)
        VALUES (-1, OLD.model_name, OLD.metric_type, OLD.metric_name, OLD.timestamp, OLD.id);
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        INSERT INTO mlops_internal.monitoring_metrics_changes
               (change, model_name, metric_type, metric_name, timestamp, metric_id)
        VALUES (1, NEW.model_name, NEW.metric_type, NEW.metric_name, NEW.timestamp, NEW.id);
    END IF;
    RETURN NULL;
END
$function$;

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
    EXECUTE format('INSERT INTO mlops_internal.monitoring_metrics_changes'
                   ' (change, model_name, metric_type, metric_name, timestamp, metric_id)'
                   ' SELECT -1, model_name, metric_type, metric_name, timestamp, id FROM ONLY %s', TG_RELID::regclass);
    RETURN NULL;
END
$function$;

REVOKE EXECUTE ON FUNCTION mlops_internal.log_metric_truncate() FROM PUBLIC;

CREATE TRIGGER monitoring_metrics_log_changes AFTER INSERT OR UPDATE OR DELETE ON public.monitoring_metrics
    FOR EACH ROW EXECUTE FUNCTION mlops_internal.log_metric_changes();

-- TRUNCATE of the table fires the triggers of its partitions. ALWAYS: also for rows that logical replication applies.
DO $triggers$
DECLARE
    part regclass;
BEGIN
    ALTER TABLE public.monitoring_metrics ENABLE ALWAYS TRIGGER monitoring_metrics_log_changes;
    FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.monitoring_metrics'::regclass LOOP
        EXECUTE format('CREATE TRIGGER monitoring_metrics_log_truncate BEFORE TRUNCATE ON %s'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.log_metric_truncate()', part);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER monitoring_metrics_log_changes,'
                       ' ENABLE ALWAYS TRIGGER monitoring_metrics_log_truncate', part);
    END LOOP;
END $triggers$;
