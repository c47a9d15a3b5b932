-- Advance sequences whose next ids rows already have.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.advance_sequences() RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
DECLARE
    late record;
    advanced text[];
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    FOR late IN SELECT * FROM mlops_internal.late_sequences() LOOP
        -- Not back: meanwhile somebody may have taken ids.
        EXECUTE format('SELECT setval(%L, greatest(newest, last_value))'
                       '  FROM public.%I, (SELECT max(id) AS newest FROM public.%I) AS rows',
                       'public.' || late.sequence, late.sequence, late.rows_of);
        advanced := advanced || late.sequence;
    END LOOP;
    RETURN advanced;
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.advance_sequences() FROM PUBLIC;
