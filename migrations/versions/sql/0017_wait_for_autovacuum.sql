-- The server cleans up after the rewrite of 0016 about now. A session that waits for that with ACCESS EXCLUSIVE keeps
-- all others waiting behind it. With this lock nobody waits, the cleaning gives way after a second, and stays away.
-- Revisions: 0017

DO $wait$
DECLARE
    patience constant text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '10min', true);
    LOCK TABLE ONLY mlops_internal.monitoring_metrics_legacy IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', patience, true);
END $wait$;
