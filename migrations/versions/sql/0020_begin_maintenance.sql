-- Wait for another maintenance to end, and make the next one wait.
-- Revisions: 0020

CREATE FUNCTION mlops_internal.begin_maintenance() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET timezone = 'UTC'
SET datestyle = 'ISO'
AS $function$
DECLARE
    owner constant text := (
        SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'public.monitoring_metrics'::regclass
    );
    -- A view of a guest's in the place of a table would run with the owner's rights.
    strangers constant text := (
        SELECT string_agg(format('%s belongs to %s', relname, pg_get_userbyid(relowner)), ' and ' ORDER BY relname)
          FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relname IN ('model_versions', 'retraining_decisions')
           AND pg_get_userbyid(relowner) <> owner
    );
    patience constant text := current_setting('lock_timeout');
    wait constant text := coalesce(nullif(current_setting('mlops_db.lock_wait', true), ''), '60s');
    holders text;
BEGIN
    IF owner <> current_user THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('monitoring_metrics belongs to %s, and new partitions would belong to %s;'
                             ' nothing was changed', owner, current_user),
            HINT = format('Call it as the owner: POSTGRES_USER=%s.', owner);
    END IF;
    IF strangers IS NOT NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('%s, and monitoring_metrics to %s; nothing was changed', strangers, owner),
            HINT = format('Look at it; if it is yours: ALTER TABLE ... OWNER TO %I.', owner);
    END IF;
    -- Another maintenance may move rows for longer than anybody should wait for a table; and before it ends, whoever
    -- looks at the partitions waits for the table.
    PERFORM set_config('lock_timeout', wait, true);
    IF current_setting('lock_timeout') = '0' THEN -- which would be no bound
        PERFORM set_config('lock_timeout', '1ms', true);
    END IF;
    BEGIN
        LOCK TABLE ONLY public.monitoring_metrics IN SHARE UPDATE EXCLUSIVE MODE;
    EXCEPTION WHEN lock_not_available THEN
        SELECT string_agg(DISTINCT format('pid %s (%s)', l.pid, concat_ws(', ', nullif(a.application_name, ''),
                                                                          'role ' || a.usename)), '; ')
          INTO holders
          FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
         WHERE l.relation = 'public.monitoring_metrics'::regclass AND l.granted AND l.pid <> pg_backend_pid()
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock');
        RAISE object_in_use USING
            MESSAGE = format('monitoring_metrics is still being maintained or altered after %s, by %s; nothing was changed',
                             current_setting('lock_timeout'), coalesce(holders, 'a session that has just ended')),
            HINT = 'Let it end and call it again, or wait longer: MLOPS_LOCK_WAIT=10min, in SQL SET mlops_db.lock_wait.';
    END;
    -- On Citus for the workers, too, where others may hold a shard. PostgreSQL alone does not know the first setting.
    SET LOCAL citus.propagate_set_commands = 'local';
    EXECUTE format('SET LOCAL lock_timeout = %L', patience);
    SET LOCAL citus.propagate_set_commands = 'none';
END
$function$;

REVOKE EXECUTE ON ROUTINE mlops_internal.begin_maintenance() FROM PUBLIC;
