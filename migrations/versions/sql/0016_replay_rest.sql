-- Replay the last changes, under the lock, and stop unless the copy has what the table has.
-- Revisions: 0016 (downgrade), 0019

DO $replay$
DECLARE
    metrics constant regclass := 'public.monitoring_metrics';
    counted record;
    wrong text;
BEGIN
    IF (SELECT copy_rows FROM mlops_internal.table_copies) IS NULL THEN
        RETURN;  -- the copy is of the other way, and goes
    END IF;
    PERFORM mlops_internal.replay_metric_changes();
    SELECT * INTO STRICT counted FROM mlops_internal.table_copies;
    IF counted.source_rows <> counted.copy_rows THEN
        wrong := format('the copy of monitoring_metrics has %s rows, and the table %s',
                        counted.copy_rows, counted.source_rows);
    ELSIF counted.parts <> ARRAY(SELECT inhrelid FROM pg_inherits WHERE inhparent = metrics ORDER BY 1) THEN
        wrong := 'partitions of monitoring_metrics came or went while it was copied';
    ELSIF counted.triggers <> ARRAY(SELECT format('%s %s', oid, xmin) FROM pg_trigger
                                     WHERE format('%s %s', oid, xmin) = ANY (counted.triggers) ORDER BY 1) THEN
        wrong := 'triggers that log changes of monitoring_metrics were disabled or dropped while it was copied';
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = wrong || '; nothing was changed',
            HINT = CASE WHEN counted.parts = '{}' THEN 'Begin anew: alembic downgrade 0015, then alembic upgrade head.'
                        ELSE 'Begin anew: alembic upgrade 0019, then the downgrade again.' END;
    END IF;
END $replay$;
