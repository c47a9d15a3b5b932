-- Copy the grants on the table and its columns to the copy.
-- Revisions: 0016 (downgrade), 0019

DO $grants$
DECLARE
    grants text;
BEGIN
    SELECT string_agg(format('GRANT %s%s ON mlops_internal.monitoring_metrics_copy TO %s%s', a.privilege_type, a.of_columns,
                             CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                             CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; ')
      INTO grants
      FROM (
          SELECT acl.*, '' AS of_columns, c.relowner
            FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS acl
           WHERE c.oid = 'public.monitoring_metrics'::regclass
           UNION ALL
          SELECT acl.*, format(' (%I)', attribute.attname), c.relowner
            FROM pg_class AS c JOIN pg_attribute AS attribute ON attribute.attrelid = c.oid
           CROSS JOIN aclexplode(attribute.attacl) AS acl
           WHERE c.oid = 'public.monitoring_metrics'::regclass AND attribute.attnum > 0
      ) AS a
     WHERE a.grantee <> a.relowner;
    IF grants IS NOT NULL THEN
        EXECUTE grants;
    END IF;
END $grants$;
