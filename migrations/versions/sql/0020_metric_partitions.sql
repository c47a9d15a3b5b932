-- List the partitions of monitoring_metrics, oldest first, with their bounds.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.metric_partitions() RETURNS TABLE (partition text, lower timestamptz, upper timestamptz)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
    SELECT c.relname::text,
           CASE bounds.of[1] WHEN 'MINVALUE' THEN '-infinity' ELSE trim(bounds.of[1], '''')::timestamptz END,
           CASE bounds.of[2] WHEN 'MAXVALUE' THEN 'infinity' ELSE trim(bounds.of[2], '''')::timestamptz END
      FROM pg_inherits AS i
      JOIN pg_class AS c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(](.*)[)] TO [(](.*)[)]') AS bounds (of)
     WHERE i.inhparent = 'public.monitoring_metrics'::regclass
     ORDER BY 2
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.metric_partitions() FROM PUBLIC;
