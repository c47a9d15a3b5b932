-- List the series that have rows but no entry in the catalogue. The key finds the next series, so the rows of a
-- series are not read. A loop does it: engines that cannot recurse over this table can take each step.
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
    missing integer := 0;
BEGIN
    SELECT m.model_name, m.metric_type, m.metric_name INTO model_name, metric_type, metric_name
      FROM public.monitoring_metrics AS m
     ORDER BY m.model_name, m.metric_type, m.metric_name LIMIT 1;
    WHILE FOUND LOOP
        IF NOT EXISTS (SELECT 1 FROM mlops_internal.metric_series AS s
                        WHERE (s.model_name, s.metric_type, s.metric_name)
                            = (missing_series.model_name, missing_series.metric_type, missing_series.metric_name)) THEN
            RETURN NEXT;
            missing := missing + 1;
            EXIT WHEN missing = at_most;
        END IF;
        SELECT m.model_name, m.metric_type, m.metric_name INTO model_name, metric_type, metric_name
          FROM public.monitoring_metrics AS m
         WHERE (m.model_name, m.metric_type, m.metric_name)
             > (missing_series.model_name, missing_series.metric_type, missing_series.metric_name)
         ORDER BY m.model_name, m.metric_type, m.metric_name LIMIT 1;
    END LOOP;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.missing_series(integer) FROM PUBLIC;
