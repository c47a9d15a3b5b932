-- Stop if a model has several production versions, and name the first ten such models with their rows.
-- Revisions: 0011

DO $find$
DECLARE
    models bigint;
    found text;
BEGIN
    SELECT count(*), string_agg(format('%s (%s rows, id %s)', model_name, rows, ids), '; ' ORDER BY model_name)
                     FILTER (WHERE place <= 10)
      INTO models, found
      FROM (
          SELECT model_name, count(*) AS rows, array_to_string((array_agg(id ORDER BY id))[1:10], ', ') AS ids,
                 row_number() OVER (ORDER BY model_name) AS place
            FROM public.model_versions
           WHERE status = 'production'
             AND model_name IN (SELECT model_name FROM public.model_versions WHERE status = 'production'
                                 GROUP BY model_name HAVING count(*) > 1)
           GROUP BY model_name
      ) AS several;
    IF models > 0 THEN
        RAISE unique_violation USING
            MESSAGE = format('%s several production versions: %s; nothing was changed',
                             CASE models WHEN 1 THEN '1 model has' ELSE models || ' models have' END, found),
            HINT = $all$Archive all but the one that serves (UPDATE model_versions SET status = 'archived' WHERE id = ...), then run it again: SELECT * FROM model_versions WHERE status = 'production' ORDER BY model_name, id$all$;
    END IF;
END $find$;
