-- Autovacuum may be cleaning up after the rewrite of 0016. A session that waits for it with ACCESS EXCLUSIVE blocks all
-- others. With this lock nobody else waits, autovacuum gives up after a second, and does not come back.
-- Revisions: 0017

DO $wait$
DECLARE
    patience constant text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '10min', true);
    LOCK TABLE ONLY mlops_internal.monitoring_metrics_legacy IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', patience, true);
END $wait$;
