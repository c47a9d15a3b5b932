-- Stop if rows have ids beyond 32 bits. If only the sequence is beyond, set it back.
-- Revisions: 0016 (downgrade), 0017 (downgrade), 0019 (downgrade)

DO $find$
DECLARE
    largest constant bigint := 2147483647;
    highest bigint;
BEGIN
    SELECT max(id) INTO highest FROM public.monitoring_metrics;
    IF highest > largest THEN
        RAISE numeric_value_out_of_range USING
            MESSAGE = format('monitoring_metrics has ids up to %s, and the table of revision 0015 ends at %s; nothing was changed',
                             highest, largest),
            HINT = format('Stay at revision 0019 or later, or remove or renumber the rows: SELECT * FROM'
                          ' monitoring_metrics WHERE id > %s ORDER BY id', largest);
    END IF;
    -- The rows that had the larger ids may be gone.
    IF (SELECT last_value FROM public.monitoring_metrics_id_seq) > largest THEN
        EXECUTE format('ALTER SEQUENCE public.monitoring_metrics_id_seq RESTART WITH %s',
                       least(coalesce(highest, 0) + 1, largest));
    END IF;
END $find$;
