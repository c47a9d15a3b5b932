-- Complete the copy of the way back: give it its key, count both tables, replay the changes until few are left. Nobody
-- uses the copy yet, so nobody waits. After an upgrade the copy is the monthly one, and is emptied instead.
-- Revisions: 0017 (downgrade)

DO $complete$
DECLARE
    counted_source bigint;
    counted_copy bigint;
BEGIN
    PERFORM set_config('lock_timeout', '10min', true);  -- autovacuum may look at the copy
    IF EXISTS (SELECT FROM pg_class WHERE oid = 'public.monitoring_metrics'::regclass AND relkind = 'r') THEN
        TRUNCATE mlops_internal.monitoring_metrics_copy;
        ALTER TABLE mlops_internal.monitoring_metrics_copy DROP CONSTRAINT IF EXISTS monitoring_metrics_pkey;
        UPDATE mlops_internal.table_copies SET source_rows = NULL, copy_rows = NULL;
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE contype = 'p'
                      AND conrelid = 'mlops_internal.monitoring_metrics_copy'::regclass) THEN
        -- squawk-ignore constraint-missing-not-valid, adding-serial-primary-key-field
        ALTER TABLE mlops_internal.monitoring_metrics_copy ADD CONSTRAINT monitoring_metrics_pkey PRIMARY KEY (id);
    END IF;
    -- In one statement, so of one moment. EXECUTE may count in parallel.
    EXECUTE $count$
        SELECT (SELECT count(*) FROM public.monitoring_metrics)
               - (SELECT coalesce(sum(change), 0) FROM mlops_internal.monitoring_metrics_changes),
               (SELECT count(*) FROM mlops_internal.monitoring_metrics_copy)
        $count$ INTO counted_source, counted_copy;
    UPDATE mlops_internal.table_copies SET source_rows = counted_source, copy_rows = counted_copy;
    FOR round IN 1 .. 20 LOOP  -- writers may be quicker
        EXIT WHEN mlops_internal.replay_metric_changes() < 1000;
    END LOOP;
END $complete$;
