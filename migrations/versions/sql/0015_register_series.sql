-- Enter a series into the catalogue, unless it is there.
-- Revisions: 0015

CREATE FUNCTION mlops_internal.register_series(model_name text, metric_type text, metric_name text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
    INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name)
    VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
$function$;

REVOKE EXECUTE ON FUNCTION mlops_internal.register_series(text, text, text) FROM PUBLIC;
