-- Stop if another role owns the table, or if pg_depend shows objects of others that depend on it, on its columns or on
-- its row type: readers would still read the old table, and its parts would stay with the old table. v_recent_monitoring
-- goes with the table, so what depends on the view counts, too. A run asks before its first step, when our views of
-- schema reporting may be there.
-- Revisions: 0016, 0019

DO $find$
DECLARE
    metrics constant regclass := 'public.monitoring_metrics';
    replaced constant oid[] := ARRAY[metrics, to_regclass('public.v_recent_monitoring')];
    owner text;
    readers text;
    parts text;
    remedies text;
BEGIN
    SELECT pg_get_userbyid(relowner) INTO owner FROM pg_class WHERE oid = metrics;
    IF owner <> current_user THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('monitoring_metrics belongs to %s, and would belong to %s; nothing was changed',
                             owner, current_user),
            HINT = format('Run it as the owner: POSTGRES_USER=%s.', owner);
    END IF;
    WITH dependents AS (
        SELECT d.classid, d.objid, max(d.objsubid) AS objsubid, bool_or(d.deptype = 'a') AS is_part
          FROM pg_depend AS d
         WHERE d.deptype <> 'i'
           AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (replaced)
                OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
                       SELECT t.oid FROM pg_type AS t
                        WHERE t.typrelid = ANY (replaced)
                           OR t.typelem IN (SELECT reltype FROM pg_class WHERE oid = ANY (replaced))))
         GROUP BY 1, 2
    ),
    named AS (
        -- A view depends on what its rule reads.
        SELECT DISTINCT CASE WHEN v.oid IS NULL THEN o.type ELSE w.type END AS type,
               CASE WHEN v.oid IS NULL THEN o.identity ELSE w.identity END AS identity,
               a.object_names AS parts, d.is_part, d.classid, d.objid, d.objsubid
          FROM dependents AS d
          LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
          LEFT JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
         CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS o
         CROSS JOIN LATERAL pg_identify_object_as_address(d.classid, d.objid, d.objsubid) AS a
          LEFT JOIN LATERAL pg_identify_object('pg_class'::regclass, v.oid, 0) AS w ON v.oid IS NOT NULL
    ),
    strangers AS (
        SELECT regexp_replace(regexp_replace(n.identity, ' on public\.monitoring_metrics$', ''), '^public\.', '') AS shown,
               n.*, p.pubname, c.relkind
          FROM named AS n
          LEFT JOIN pg_publication_rel AS pr ON n.classid = 'pg_publication_rel'::regclass AND pr.oid = n.objid
          LEFT JOIN pg_publication AS p ON p.oid = pr.prpubid
          LEFT JOIN pg_class AS c ON n.classid = 'pg_class'::regclass AND c.oid = n.objid
          LEFT JOIN pg_constraint AS k ON n.classid = 'pg_constraint'::regclass AND k.oid = n.objid
         WHERE (n.type, n.identity) NOT IN (
                   ('view', 'public.v_recent_monitoring'),
                   ('view', 'reporting.metric_history'),
                   ('sequence', 'public.monitoring_metrics_id_seq'),
                   ('view', 'mlops_internal.metrics_for_months'),
                   ('view', 'mlops_internal.metrics_for_one_table'),
                   ('trigger', 'monitoring_metrics_register_series on public.monitoring_metrics'),
                   ('trigger', 'monitoring_metrics_register_updated_series on public.monitoring_metrics'),
                   ('trigger', 'monitoring_metrics_log_changes on public.monitoring_metrics'),
                   ('trigger', 'monitoring_metrics_log_truncate on public.monitoring_metrics'),
                   ('index', 'public.monitoring_metrics_id_idx'),
                   ('default value', 'for public.monitoring_metrics.id'),
                   ('default value', 'for public.monitoring_metrics."timestamp"'),
                   ('default value', 'for public.monitoring_metrics.created_at'),
                   ('default value', 'for public.monitoring_metrics.model_name'))
           AND NOT coalesce(c.relispartition OR k.contype IN ('n', 'p')
                            OR k.conrelid = metrics AND k.conname IN (
                                   'monitoring_metrics_rules_check', 'monitoring_metrics_timestamp_check',
                                   'monitoring_metrics_created_at_check', 'monitoring_metrics_metric_value_check'), false)
    ),
    described (what, is_part, remedy) AS (
        SELECT CASE WHEN s.pubname IS NOT NULL THEN format('publication %I', s.pubname)
                    WHEN s.type LIKE '% constraint' THEN 'constraint ' || s.shown
                    WHEN s.relkind IN ('r', 'p', 'f') AND s.objsubid = 0 THEN format('child table %s', s.shown)
                    WHEN s.type IN ('view', 'materialized view') THEN s.shown
                    ELSE s.type || ' ' || s.shown END,
               s.is_part OR coalesce(s.relkind IN ('r', 'p', 'f') AND s.objsubid = 0, false),
               CASE WHEN s.pubname IS NOT NULL THEN format('ALTER PUBLICATION %I DROP TABLE %I', s.pubname, 'monitoring_metrics')
                    WHEN s.type LIKE '% constraint'
                        THEN format('ALTER TABLE %I.%I DROP CONSTRAINT %I', s.parts[1], s.parts[2], s.parts[3])
                    WHEN s.type = 'default value'
                        THEN format('ALTER TABLE %I.%I ALTER COLUMN %I DROP DEFAULT', s.parts[1], s.parts[2], s.parts[3])
                    WHEN s.type LIKE '%column'
                        THEN format('ALTER TABLE %I.%I ALTER COLUMN %I TYPE text', s.parts[1], s.parts[2], s.parts[3])
                    WHEN s.relkind IN ('r', 'p', 'f') THEN format('ALTER TABLE %s NO INHERIT monitoring_metrics', s.shown)
                    WHEN s.type IN ('trigger', 'policy', 'rule') THEN format('DROP %s %s', upper(s.type), s.identity)
                    WHEN s.type = 'statistics object' THEN format('DROP STATISTICS %s', s.shown)
                    ELSE format('DROP %s %s', upper(s.type), s.shown) END
          FROM strangers AS s
         UNION ALL
        SELECT 'row level security', true, 'ALTER TABLE monitoring_metrics DISABLE ROW LEVEL SECURITY'
          FROM pg_class WHERE oid = metrics AND relrowsecurity
         UNION ALL
        SELECT 'parent table ' || regexp_replace(inhparent::regclass::text, '^public\.', ''), true,
               format('ALTER TABLE monitoring_metrics NO INHERIT %s', inhparent::regclass)
          FROM pg_inherits WHERE inhrelid = metrics
         UNION ALL
        SELECT format('column %I', attname), true,
               format('CREATE TABLE %I AS SELECT id, %I FROM monitoring_metrics;'
                      ' ALTER TABLE monitoring_metrics DROP COLUMN %I', 'monitoring_metrics_' || attname, attname, attname)
          FROM pg_attribute
         WHERE attrelid = metrics AND attnum > 0 AND NOT attisdropped
           AND attname NOT IN ('id', 'timestamp', 'metric_type', 'metric_name', 'metric_value', 'metadata', 'created_at',
                               'model_name')
    )
    SELECT string_agg(what, ', ' ORDER BY what) FILTER (WHERE NOT is_part),
           string_agg(what, ', ' ORDER BY what) FILTER (WHERE is_part),
           string_agg(remedy, '; ' ORDER BY what)
      INTO readers, parts, remedies FROM described;
    IF remedies IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = concat_ws('; ', readers || ' would still read the old table of monitoring_metrics',
                                'the new table of monitoring_metrics would be without ' || parts, 'nothing was changed'),
            HINT = format('%s; run it again, and create it again afterwards.', remedies);
    END IF;
END $find$;
