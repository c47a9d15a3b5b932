-- Stop if several rows have the same id: the key of the monthly table allows it, and the key of the plain one does not.
-- Revisions: 0019 (downgrade)

DO $find$
DECLARE
    found text;
BEGIN
    SELECT string_agg(id::text, ', ' ORDER BY id) INTO found
      FROM (SELECT id FROM public.monitoring_metrics GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 10) AS repeated;
    IF found IS NOT NULL THEN
        RAISE unique_violation USING
            MESSAGE = format('monitoring_metrics has ids that several rows have: %s; the table of revision 0015 allows one row'
                             ' for each; nothing was changed', found),
            HINT = format('Give all but one of them another id, such as nextval(''monitoring_metrics_id_seq''): SELECT *'
                          ' FROM monitoring_metrics WHERE id IN (%s) ORDER BY id', found);
    END IF;
END $find$;
