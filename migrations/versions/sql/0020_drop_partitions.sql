-- Drop the partitions that have only older rows.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.drop_partitions(keep interval) RETURNS text[]
LANGUAGE plpgsql STRICT
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
DECLARE
    old text[];
    start timestamptz;
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    old := ARRAY(SELECT mlops_internal.partitions_older_than(keep));
    IF old = '{}' THEN
        RETURN NULL;
    END IF;
    LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE;
    SELECT max(upper) INTO start FROM mlops_internal.metric_partitions() WHERE partition = ANY(old);
    -- The one without a beginning goes along, and comes back empty with the new beginning as its end.
    EXECUTE (SELECT 'DROP TABLE mlops_internal.monitoring_metrics_earlier'
                    || coalesce(string_agg(format(', mlops_internal.%I', name), ''), '')
               FROM unnest(old) AS name WHERE name <> 'monitoring_metrics_earlier');
    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_earlier PARTITION OF public.monitoring_metrics'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', start);
    RETURN old;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.drop_partitions(interval) FROM PUBLIC;
