-- The zone that old timestamps were written in: from `-x legacy-timezone`, otherwise UTC. Until the transaction ends.
-- Revisions: 0005, 0006

SELECT set_config('TimeZone', coalesce(nullif(current_setting('mlops_db.legacy_timezone', true), ''), 'UTC'), true);
