-- Move the newest month out of monitoring_metrics_earlier into a partition of its own.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.move_earlier_month() RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
DECLARE
    -- What is older than ten years stays where it is: one stray row of 1970 is not worth hundreds of partitions.
    oldest constant timestamptz := date_trunc('month', CURRENT_TIMESTAMP) - interval '10 years';
    upper_end timestamptz;
    month timestamptz;
    empty_month timestamptz;
    name text;
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    IF NOT EXISTS (SELECT 1 FROM mlops_internal.monitoring_metrics_earlier WHERE timestamp >= oldest) THEN
        RETURN NULL;
    END IF;
    LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE;
    SELECT upper INTO STRICT upper_end FROM mlops_internal.metric_partitions() WHERE lower = '-infinity';
    SELECT date_trunc('month', max(timestamp)) INTO STRICT month FROM mlops_internal.monitoring_metrics_earlier;
    name := mlops_internal.name_of_month(month);
    ALTER TABLE public.monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_earlier;
    -- The months after it that no row is of come along, because the partitions must leave no gap.
    empty_month := month + interval '1 month';
    WHILE empty_month < upper_end LOOP
        EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics'
                       ' FOR VALUES FROM (%L) TO (%L)', mlops_internal.name_of_month(empty_month), empty_month,
                       least(empty_month + interval '1 month', upper_end));
        empty_month := empty_month + interval '1 month';
    END LOOP;
    EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics FOR VALUES FROM (%L) TO (%L)',
                   name, month, least(month + interval '1 month', upper_end));
    EXECUTE format('INSERT INTO mlops_internal.%I SELECT * FROM mlops_internal.monitoring_metrics_earlier'
                   ' WHERE timestamp >= %L', name, month);
    DELETE FROM mlops_internal.monitoring_metrics_earlier WHERE timestamp >= month;
    EXECUTE format('ALTER TABLE public.monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_earlier'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', month);
    RETURN name;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.move_earlier_month() FROM PUBLIC;
