-- Enter the series that the catalogue lacks.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.register_missing_series() RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
    WITH registered AS (
        INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name)
        SELECT model_name, metric_type, metric_name FROM mlops_internal.missing_series()
            ON CONFLICT DO NOTHING RETURNING 1
    )
    SELECT nullif(count(*), 0) FROM registered
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.register_missing_series() FROM PUBLIC;
