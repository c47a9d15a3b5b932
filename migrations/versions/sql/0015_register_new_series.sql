-- Enter the series of the rows that a statement wrote: the function of the triggers.
-- The query is planned each time (EXECUTE): a plan for one row is bad for 100,000 rows.
-- Revisions: 0015

CREATE FUNCTION mlops_internal.register_new_series() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF TG_RELID IS DISTINCT FROM to_regclass('public.monitoring_metrics') THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('%I.%I is not monitoring_metrics, and its rows are of no series', TG_TABLE_SCHEMA, TG_TABLE_NAME),
            HINT = 'Drop the trigger.';
    END IF;
    EXECUTE $query$
        SELECT mlops_internal.register_series(model_name, metric_type, metric_name)
          FROM (
              SELECT DISTINCT n.model_name, n.metric_type, n.metric_name
                FROM new_rows AS n
               WHERE n.metric_type IS NOT NULL AND n.metric_name IS NOT NULL
                 AND NOT EXISTS (
                     SELECT FROM mlops_internal.metric_series AS s
                      WHERE s.model_name = n.model_name
                        AND s.metric_type = n.metric_type AND s.metric_name = n.metric_name
                 )
               ORDER BY 1, 2, 3  -- the same order for all, so that two writers cannot wait for each other in a circle
          ) AS new_series
    $query$;
    RETURN NULL;
END
$function$;

REVOKE EXECUTE ON FUNCTION mlops_internal.register_new_series() FROM PUBLIC;
