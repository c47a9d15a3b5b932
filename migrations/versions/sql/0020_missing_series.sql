-- List the series that have rows but no entry in the catalogue. The key finds the next series, so the rows of a
-- series are not read. On Citus each shard does it beside its shard of the catalogue: no query over all of them can.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.missing_series(at_most integer DEFAULT NULL)
    RETURNS TABLE (model_name text, metric_type text, metric_name text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
DECLARE
    find constant text := $find$
        WITH RECURSIVE series AS (
            (SELECT m.model_name, m.metric_type, m.metric_name FROM %1$s AS m
              ORDER BY m.model_name, m.metric_type, m.metric_name LIMIT 1)
            UNION ALL
            SELECT next.* FROM series AS s
             CROSS JOIN LATERAL (
                 SELECT m.model_name, m.metric_type, m.metric_name FROM %1$s AS m
                  WHERE (m.model_name, m.metric_type, m.metric_name) > (s.model_name, s.metric_type, s.metric_name)
                  ORDER BY m.model_name, m.metric_type, m.metric_name LIMIT 1
             ) AS next
        )
        SELECT s.model_name::text, s.metric_type::text, s.metric_name::text FROM series AS s
         WHERE NOT EXISTS (SELECT 1 FROM %2$s AS known
                            WHERE (known.model_name, known.metric_type, known.metric_name)
                                = (s.model_name, s.metric_type, s.metric_name))
         LIMIT %3$L
    $find$;
    distributed boolean := false;
    answer record;
    found bigint;
BEGIN
    IF to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_dist_partition WHERE logicalrelid = $1 AND partmethod = ''h'')'
           INTO distributed USING 'public.monitoring_metrics'::regclass;
    END IF;
    IF NOT distributed THEN
        RETURN QUERY EXECUTE format(find, 'public.monitoring_metrics', 'mlops_internal.metric_series', at_most);
        RETURN;
    END IF;
    FOR answer IN
        EXECUTE 'SELECT * FROM run_command_on_colocated_placements($1, $2, $3)'
          USING 'public.monitoring_metrics'::regclass, 'mlops_internal.metric_series'::regclass,
                format('SELECT coalesce(json_agg(missing), ''[]'') FROM (%s) AS missing', format(find, '%1$s', '%2$s', at_most))
    LOOP
        IF NOT answer.success THEN
            RAISE connection_exception USING
                MESSAGE = format('the series on %s:%s are not known: %s', answer.nodename, answer.nodeport, answer.result),
                HINT = 'Call it again when that worker is back.';
        END IF;
        RETURN QUERY SELECT r.* FROM json_to_recordset(answer.result::json)
                                  AS r (model_name text, metric_type text, metric_name text)
                      LIMIT at_most;
        GET DIAGNOSTICS found = ROW_COUNT;
        at_most := at_most - found;
    END LOOP;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.missing_series(integer) FROM PUBLIC;
