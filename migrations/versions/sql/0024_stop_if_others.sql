-- Stop if schema reporting has objects that no revision made, and name the first ten.
-- Revisions: 0024 (downgrade)

DO $find$
DECLARE
    objects bigint;
    found text;
BEGIN
    SELECT count(*), string_agg(format('%s %s', type, identity), ', ' ORDER BY place) FILTER (WHERE place <= 10)
      INTO objects, found
      FROM (
          SELECT o.type, o.identity, row_number() OVER (ORDER BY o.type, o.identity) AS place
            FROM pg_depend AS d
           CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) AS o
           WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace('reporting')
             AND d.deptype = 'n'
             AND o.identity <> ALL (ARRAY['reporting.metric_history', 'reporting.production_periods',
                                          'reporting.decision_gates'])
             AND (d.classid, d.objid) IS DISTINCT FROM (
                     'pg_proc'::regclass, to_regprocedure('reporting.metric_daily(timestamptz, timestamptz)'))
      ) AS others;
    IF objects > 0 THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = format('schema reporting, which would go, has %s: %s; nothing was changed',
                             CASE objects WHEN 1 THEN '1 object of others' ELSE objects || ' objects of others' END,
                             found || CASE WHEN objects > 10 THEN ', ...' ELSE '' END),
            HINT = 'Move them to another schema (ALTER ... SET SCHEMA), or drop them; then run it again.';
    END IF;
END $find$;
