-- Replay changes until few are left, before the lock: if the copy is complete, it is to take the place of the table.
-- Revisions: 0016 (downgrade), 0019

DO $replay$
BEGIN
    IF (SELECT copy_rows FROM mlops_internal.table_copies) IS NOT NULL THEN
        FOR round IN 1 .. 20 LOOP  -- writers may be quicker
            EXIT WHEN mlops_internal.replay_metric_changes() < 1000;
        END LOOP;
    END IF;
END $replay$;
