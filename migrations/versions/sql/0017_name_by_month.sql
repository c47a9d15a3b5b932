-- Name the partition of the old rows after its month, if it holds one month only.
-- Revisions: 0017

DO $name$
DECLARE
    bounds constant text[] := (
        SELECT regexp_match(pg_get_expr(relpartbound, oid), 'FROM \(''(.*)''\) TO \(''(.*)''\)')
          FROM pg_class WHERE oid = 'mlops_internal.monitoring_metrics_legacy'::regclass
    );
    month constant timestamptz := bounds[1]::timestamptz;
    name constant text := 'monitoring_metrics_' || to_char(month, 'YYYY_MM');
BEGIN
    IF bounds[2]::timestamptz = month + interval '1 month' AND to_regclass('mlops_internal.' || name) IS NULL THEN
        EXECUTE format('ALTER TABLE mlops_internal.monitoring_metrics_legacy'
                       ' RENAME CONSTRAINT monitoring_metrics_legacy_pkey TO %I', name || '_pkey');
        EXECUTE format('ALTER TABLE mlops_internal.monitoring_metrics_legacy RENAME TO %I', name);
    END IF;
END $name$;
