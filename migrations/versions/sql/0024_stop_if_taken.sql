-- Stop if there is a schema reporting already: it is somebody's, and may have objects.
-- Revisions: 0024

DO $find$
DECLARE
    owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'reporting');
BEGIN
    IF owner IS NOT NULL THEN
        RAISE duplicate_schema USING
            MESSAGE = format('there is a schema reporting already, and it belongs to %s; nothing was changed', owner),
            HINT = 'Rename it (ALTER SCHEMA reporting RENAME TO ...), or drop it if nobody wants it; then run it again.';
    END IF;
END $find$;
