-- List the sequences whose next ids rows already have. For metrics it reads only the last month, because no index is on
-- the id alone.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.late_sequences() RETURNS TABLE (sequence text, rows_of text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
    SELECT used.sequence, used.rows_of
      FROM (VALUES ('model_versions_id_seq', 'model_versions', (SELECT max(id) FROM public.model_versions)),
                   ('monitoring_metrics_id_seq', 'monitoring_metrics',
                    (SELECT max(id) FROM public.monitoring_metrics WHERE timestamp >= CURRENT_TIMESTAMP - interval '1 month')),
                   ('retraining_decisions_id_seq', 'retraining_decisions', (SELECT max(id) FROM public.retraining_decisions))
           ) AS used (sequence, rows_of, last)
     WHERE used.last > coalesce(pg_sequence_last_value(to_regclass('public.' || used.sequence)), 0)
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.late_sequences() FROM PUBLIC;
