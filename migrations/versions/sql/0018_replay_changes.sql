-- Give the copy the changes that are logged: remove each row that was touched, and copy it as it is now, if it is still
-- there. Returns how many changes it took. The plan looks each row up by its key, however many rows the tables have.
-- Revisions: 0018 (downgrade)

CREATE FUNCTION mlops_internal.replay_metric_changes() RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $function$
DECLARE
    taken constant bigint[] := ARRAY(SELECT id FROM mlops_internal.monitoring_metrics_changes);
    removed bigint;
    added bigint;
BEGIN
    DELETE FROM mlops_internal.monitoring_metrics_copy AS c
     USING unnest(taken) AS one (id) JOIN mlops_internal.monitoring_metrics_changes AS log ON log.id = one.id
     WHERE c.id = log.metric_id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    INSERT INTO mlops_internal.monitoring_metrics_copy
           (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name)
    SELECT m.id, m.timestamp, m.metric_type, m.metric_name, m.metric_value, m.metadata, m.created_at, m.model_name
      FROM (SELECT DISTINCT log.model_name, log.metric_type, log.metric_name, log.timestamp, log.metric_id
              FROM unnest(taken) AS one (id) JOIN mlops_internal.monitoring_metrics_changes AS log ON log.id = one.id
           ) AS touched
      JOIN mlops_internal.metrics_for_one_table AS m
        ON m.model_name = touched.model_name AND m.metric_type = touched.metric_type
       AND m.metric_name = touched.metric_name AND m.moment = touched.timestamp AND m.id = touched.metric_id;
    GET DIAGNOSTICS added = ROW_COUNT;
    WITH gone AS (
        DELETE FROM mlops_internal.monitoring_metrics_changes WHERE id = ANY (taken) RETURNING change
    )
    UPDATE mlops_internal.table_copies
       SET source_rows = source_rows + (SELECT coalesce(sum(change), 0) FROM gone),
           copy_rows = copy_rows - removed + added
     WHERE source = 'public.monitoring_metrics'::regclass;
    RETURN cardinality(taken);
END
$function$;

REVOKE EXECUTE ON FUNCTION mlops_internal.replay_metric_changes() FROM PUBLIC;
