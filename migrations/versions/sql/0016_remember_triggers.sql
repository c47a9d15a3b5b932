-- Remember which triggers write the log. One that was dropped and created again may have missed changes, and so may one
-- of a month that was detached and attached again: these have other oids. One that was disabled and enabled again has
-- another xmin.
-- Revisions: 0016, 0019 (downgrade)

UPDATE mlops_internal.table_copies
   SET triggers = ARRAY(SELECT format('%s %s', oid, xmin) FROM pg_trigger
                         WHERE tgname IN ('monitoring_metrics_log_changes', 'monitoring_metrics_log_truncate')
                           AND (tgrelid = source OR tgrelid = ANY (parts)) ORDER BY 1);
