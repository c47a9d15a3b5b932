-- Give the copy the changes that are logged: remove what stands at each key that was touched, and copy the row that has
-- this key now, if there is one. A row whose key has changed since comes with the change to its new key: copied before
-- that, it would stand there twice. Returns how many changes it took. It takes them in the order in which a row was
-- changed, so many at a time that they fit into memory. OFFSET 0 keeps the lookups by key, one for each change, whatever
-- PostgreSQL knows about the tables; rows go by their place, because before PostgreSQL 14 a DELETE with a join looks into
-- every partition.
-- Revisions: 0016

CREATE FUNCTION mlops_internal.replay_metric_changes() RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET enable_seqscan = off
AS $function$
DECLARE
    last constant bigint := (SELECT max(id) FROM mlops_internal.monitoring_metrics_changes);
    taken mlops_internal.monitoring_metrics_changes[];
    part record;
    deleted bigint;
    removed bigint;
    added bigint;
    replayed bigint := 0;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = 'changes of monitoring_metrics are replayed at an isolation level that does not see the last ones;'
                      ' nothing was changed',
            HINT = 'Use READ COMMITTED.';
    END IF;
    LOOP
        WITH gone AS (
            DELETE FROM mlops_internal.monitoring_metrics_changes AS log
             WHERE log.id = ANY (ARRAY(SELECT id FROM mlops_internal.monitoring_metrics_changes
                                        WHERE id <= last ORDER BY id LIMIT 50000))
            RETURNING log AS change
        )
        SELECT array_agg(change) INTO taken FROM gone;
        EXIT WHEN taken IS NULL;
        removed := 0;
        FOR part IN
            SELECT touched.part::regclass AS name, array_agg(DISTINCT touched.place) AS places
              FROM unnest(taken) AS log
             CROSS JOIN LATERAL (
                       SELECT c.tableoid AS part, c.ctid AS place FROM mlops_internal.monitoring_metrics_copy AS c
                        WHERE c.model_name = log.model_name AND c.metric_type = log.metric_type
                       AND c.metric_name = log.metric_name AND c.timestamp = log.timestamp AND c.id = log.metric_id OFFSET 0
                   ) AS touched
             GROUP BY 1
        LOOP
            EXECUTE format('DELETE FROM %s WHERE ctid = ANY ($1)', part.name) USING part.places;
            GET DIAGNOSTICS deleted = ROW_COUNT;
            removed := removed + deleted;
        END LOOP;
        INSERT INTO mlops_internal.monitoring_metrics_copy
               (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name)
        SELECT m.id, m.timestamp, m.metric_type, m.metric_name, m.metric_value, m.metadata, m.created_at, m.model_name
          FROM (SELECT DISTINCT log.model_name, log.metric_type, log.metric_name, log.timestamp, log.metric_id::integer AS id
                  FROM unnest(taken) AS log) AS touched
         CROSS JOIN LATERAL (
                   SELECT * FROM mlops_internal.metrics_for_months AS one
                    WHERE one.id = touched.id AND one.model_name = touched.model_name
                      AND one.metric_type = touched.metric_type AND one.metric_name = touched.metric_name
                      AND one.timestamp = touched.timestamp OFFSET 0
               ) AS m;
        GET DIAGNOSTICS added = ROW_COUNT;
        UPDATE mlops_internal.table_copies
           SET source_rows = source_rows + (SELECT sum(log.change) FROM unnest(taken) AS log),
               copy_rows = copy_rows - removed + added
         WHERE source = 'public.monitoring_metrics'::regclass;
        replayed := replayed + cardinality(taken);
    END LOOP;
    RETURN replayed;
END
$function$;

REVOKE EXECUTE ON FUNCTION mlops_internal.replay_metric_changes() FROM PUBLIC;
