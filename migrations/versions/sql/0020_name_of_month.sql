-- Name the partition of a month.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.name_of_month(month timestamptz) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
DECLARE
    name constant text := 'monitoring_metrics_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass('mlops_internal.' || name) IS NOT NULL THEN
        RAISE duplicate_table USING
            MESSAGE = format('mlops_internal.%s is there, and is not the partition of its month; nothing was changed', name),
            HINT = format('Keep it under another name: ALTER TABLE mlops_internal.%s RENAME TO ...', name);
    END IF;
    RETURN name;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.name_of_month(timestamptz) FROM PUBLIC;
