-- Enter the series of the rows that a statement wrote: the function of the triggers.
-- Citus runs the triggers on the shard that the rows are in. The shard of the catalogue beside it has the same range of
-- hashes, and so the series of the same models.
-- The query is planned each time (EXECUTE): a plan for one row is bad for 100,000 rows.
-- Revisions: 0015

CREATE FUNCTION mlops_internal.register_new_series() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    catalogue text;
BEGIN
    IF TG_RELID = to_regclass('public.monitoring_metrics') THEN
        catalogue := 'metric_series';
    ELSIF to_regclass('pg_catalog.pg_dist_shard') IS NOT NULL THEN
        EXECUTE $query$
            SELECT 'metric_series_' || series.shardid
              FROM pg_catalog.pg_dist_shard AS metrics
              JOIN pg_catalog.pg_dist_shard AS series ON series.shardminvalue = metrics.shardminvalue
             WHERE metrics.shardid = substring($2 FROM '_([0-9]{1,18})$')::bigint
               AND to_regclass('public.monitoring_metrics_' || metrics.shardid) = $1
               AND metrics.logicalrelid = to_regclass('public.monitoring_metrics')
               AND series.logicalrelid = to_regclass('mlops_internal.metric_series')
        $query$ INTO catalogue USING TG_RELID, TG_TABLE_NAME;
    END IF;
    IF catalogue IS NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('%I.%I is not monitoring_metrics, and its rows are of no series', TG_TABLE_SCHEMA, TG_TABLE_NAME),
            HINT = 'Drop the trigger.';
    END IF;
    EXECUTE format($query$
        INSERT INTO mlops_internal.%I (model_name, metric_type, metric_name)
        SELECT DISTINCT n.model_name, n.metric_type, n.metric_name
          FROM new_rows AS n
         WHERE n.metric_type IS NOT NULL AND n.metric_name IS NOT NULL
           AND NOT EXISTS (
               SELECT 1 FROM mlops_internal.%1$I AS s
                WHERE s.model_name = n.model_name AND s.metric_type = n.metric_type AND s.metric_name = n.metric_name
           )
         ORDER BY 1, 2, 3  -- the same order for all, so that two writers cannot wait for each other in a circle
            ON CONFLICT DO NOTHING
    $query$, catalogue);
    RETURN NULL;
END
$function$;

REVOKE EXECUTE ON FUNCTION mlops_internal.register_new_series() FROM PUBLIC;
