-- List the partitions that have only older rows.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.partitions_older_than(keep interval) RETURNS SETOF text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
BEGIN
    IF keep > interval '1000 years' THEN
        RETURN;  -- before the first moment of all
    ELSIF CURRENT_TIMESTAMP - keep >= CURRENT_TIMESTAMP THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('metrics cannot be kept for %s', keep), HINT = 'Give a time above 0, such as 90 days.';
    END IF;
    RETURN QUERY
        SELECT p.partition FROM mlops_internal.metric_partitions() AS p
         WHERE p.upper <= CURRENT_TIMESTAMP - keep
           AND (p.lower > '-infinity' OR EXISTS (SELECT 1 FROM mlops_internal.monitoring_metrics_earlier))
         ORDER BY p.upper;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.partitions_older_than(interval) FROM PUBLIC;
