-- Remember which triggers write the log. One that was dropped and created again may have missed changes, and so may one
-- of a month that was detached and attached again. All of these have other oids.
-- Revisions: 0016, 0019 (downgrade)

UPDATE mlops_internal.table_copies
   SET triggers = ARRAY(SELECT oid FROM pg_trigger
                         WHERE tgname IN ('monitoring_metrics_log_changes', 'monitoring_metrics_log_truncate')
                           AND (tgrelid = source OR tgrelid = ANY (parts)) ORDER BY 1);
