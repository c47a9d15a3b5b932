-- Give the oldest month the name monitoring_metrics_legacy, if no partition has it: the next upgrade builds its key.
-- Revisions: 0017 (downgrade)

DO $name$
DECLARE
    oldest constant text := (
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = 'public.monitoring_metrics'::regclass AND relname ~ '^monitoring_metrics_[0-9]{4}_[0-9]{2}$'
         ORDER BY relname LIMIT 1
    );
BEGIN
    IF to_regclass('mlops_internal.monitoring_metrics_legacy') IS NULL THEN
        IF oldest IS NULL THEN
            RAISE object_not_in_prerequisite_state USING
                MESSAGE = 'monitoring_metrics has no month left, and revision 0016 needs one; nothing was changed',
                HINT = 'Make some, then run it again: alembic upgrade head; mlops-db maintain';
        END IF;
        EXECUTE format('ALTER TABLE mlops_internal.%I RENAME TO monitoring_metrics_legacy', oldest);
    END IF;
END $name$;
