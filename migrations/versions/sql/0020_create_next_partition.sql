-- Create the next month that is missing.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.create_next_partition(months_ahead integer DEFAULT 3) RETURNS text
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
DECLARE
    last constant timestamptz := date_trunc('month', CURRENT_TIMESTAMP) + months_ahead * interval '1 month';
    month timestamptz;
    name text;
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    SELECT lower INTO STRICT month FROM mlops_internal.metric_partitions() WHERE upper = 'infinity';
    IF month > last THEN
        RETURN NULL;
    END IF;
    name := mlops_internal.name_of_month(month);
    LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE public.monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_later;
    EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics FOR VALUES FROM (%L) TO (%L)',
                   name, month, month + interval '1 month');
    EXECUTE format('INSERT INTO mlops_internal.%I SELECT * FROM mlops_internal.monitoring_metrics_later'
                   ' WHERE timestamp < %L', name, month + interval '1 month');
    DELETE FROM mlops_internal.monitoring_metrics_later WHERE timestamp < month + interval '1 month';
    EXECUTE format('ALTER TABLE public.monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_later'
                   ' FOR VALUES FROM (%L) TO (MAXVALUE)', month + interval '1 month');
    RETURN name;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.create_next_partition(integer) FROM PUBLIC;
