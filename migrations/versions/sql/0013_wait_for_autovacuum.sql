-- Wait for autovacuum. A session that waits for it with a stronger lock blocks all others. With this lock nobody else
-- waits, autovacuum gives up after a second, and does not come back.
-- Revisions: 0013 (downgrade), 0014 (downgrade), 0015 (downgrade), 0016, 0019

DO $wait$
DECLARE
    patience constant text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '10min', true);
    LOCK TABLE public.monitoring_metrics IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', patience, true);
END $wait$;
