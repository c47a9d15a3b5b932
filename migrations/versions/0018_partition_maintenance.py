"""Create the functions that keep the partitions of monitoring_metrics: ahead, in months, and no longer than wanted.

Why: each month needs its partition before its rows come, rows that came early or late belong into months, and the oldest
    months are to go when they are older than somebody wants to keep them. And rows that came past the triggers, by logical
    replication or `pg_restore --data-only`, are of series that nobody registered, with ids that the sequences know nothing
    of. In SQL, so that `mlops-db maintain`, pg_cron (`CALL mlops_internal.maintain('90 days')`) and an Airflow task do the
    same.
Locks: none. When they are called, the functions take SHARE UPDATE EXCLUSIVE on monitoring_metrics, which keeps other
    maintenance out, and then ACCESS EXCLUSIVE: for a moment to create and to drop; and while rows are moved, some 0.7
    seconds per 100,000 (docs/scaling.md), and those that stay in monitoring_metrics_earlier are read once for each month
    that is moved out of it.
Loss on downgrade: nothing but the functions.

Each function takes one step, in the transaction of its caller, and says what it did; NULL means that nothing is left to
do. Only one maintenance runs at a time. The next one waits for it, whatever lock_timeout says: for a minute, or as long
as the setting mlops_db.lock_wait says. Then it looks what is left to do. Only a role that may write to the table can take
the lock that they wait for. model_versions and retraining_decisions are never touched.

They run with the rights of whoever calls them, who has to be the owner, and nobody else may call them. What they name
without a schema is PostgreSQL's. A procedure that commits cannot have a search path of its own (manual, "CREATE
PROCEDURE"), so `maintain` calls nothing without naming its schema.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

FUNCTION_SETTINGS = (
    "SET search_path = pg_catalog, pg_temp SET row_security = off SET timezone = 'UTC' SET datestyle = 'ISO'"
)

FUNCTIONS = {
    "metric_partitions()": f"""
CREATE FUNCTION mlops_internal.metric_partitions() RETURNS TABLE (partition text, lower timestamptz, upper timestamptz)
LANGUAGE sql STABLE {FUNCTION_SETTINGS}
AS $function$
    SELECT c.relname::text,
           CASE bounds.of[1] WHEN 'MINVALUE' THEN '-infinity' ELSE trim(bounds.of[1], '''')::timestamptz END,
           CASE bounds.of[2] WHEN 'MAXVALUE' THEN 'infinity' ELSE trim(bounds.of[2], '''')::timestamptz END
      FROM pg_inherits AS i
      JOIN pg_class AS c ON c.oid = i.inhrelid
     CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(](.*)[)] TO [(](.*)[)]') AS bounds (of)
     WHERE i.inhparent = 'public.monitoring_metrics'::regclass
     ORDER BY 2
$function$
""",
    "begin_maintenance()": f"""
CREATE FUNCTION mlops_internal.begin_maintenance() RETURNS void
LANGUAGE plpgsql {FUNCTION_SETTINGS}
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
    PERFORM set_config('lock_timeout', patience, true);
END
$function$
""",
    "name_of_month(timestamptz)": f"""
CREATE FUNCTION mlops_internal.name_of_month(month timestamptz) RETURNS text
LANGUAGE plpgsql {FUNCTION_SETTINGS}
AS $function$
DECLARE
    name constant text := 'monitoring_metrics_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass('mlops_internal.' || name) IS NOT NULL THEN
        RAISE duplicate_table USING
            MESSAGE = format('mlops_internal.%s is there, and is not the partition of its month; nothing was changed', name),
            HINT = format('Keep it under another name: ALTER TABLE mlops_internal.%s RENAME TO ...', name);
    END IF;
    RETURN name;
END
$function$
""",
    "create_next_partition(integer)": f"""
CREATE FUNCTION mlops_internal.create_next_partition(months_ahead integer DEFAULT 3) RETURNS text
LANGUAGE plpgsql STRICT {FUNCTION_SETTINGS}
AS $function$
DECLARE
    last constant timestamptz := date_trunc('month', CURRENT_TIMESTAMP) + months_ahead * interval '1 month';
    month timestamptz;
    name text;
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    SELECT lower INTO STRICT month FROM mlops_internal.metric_partitions() WHERE upper = 'infinity';
    IF month > last THEN
        RETURN NULL;
    END IF;
    name := mlops_internal.name_of_month(month);
    LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE public.monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_later;
    EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics FOR VALUES FROM (%L) TO (%L)',
                   name, month, month + interval '1 month');
    EXECUTE format('INSERT INTO mlops_internal.%I SELECT * FROM mlops_internal.monitoring_metrics_later'
                   ' WHERE timestamp < %L', name, month + interval '1 month');
    DELETE FROM mlops_internal.monitoring_metrics_later WHERE timestamp < month + interval '1 month';
    EXECUTE format('ALTER TABLE public.monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_later'
                   ' FOR VALUES FROM (%L) TO (MAXVALUE)', month + interval '1 month');
    RETURN name;
END
$function$
""",
    "move_earlier_month()": f"""
CREATE FUNCTION mlops_internal.move_earlier_month() RETURNS text
LANGUAGE plpgsql {FUNCTION_SETTINGS}
AS $function$
DECLARE
    -- What is older than ten years stays where it is: one stray row of 1970 is not worth hundreds of partitions.
    oldest constant timestamptz := date_trunc('month', CURRENT_TIMESTAMP) - interval '10 years';
    upper_end timestamptz;
    month timestamptz;
    empty_month timestamptz;
    name text;
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    IF NOT EXISTS (SELECT FROM mlops_internal.monitoring_metrics_earlier WHERE timestamp >= oldest) THEN
        RETURN NULL;
    END IF;
    LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE;
    SELECT upper INTO STRICT upper_end FROM mlops_internal.metric_partitions() WHERE lower = '-infinity';
    SELECT date_trunc('month', max(timestamp)) INTO STRICT month FROM mlops_internal.monitoring_metrics_earlier;
    name := mlops_internal.name_of_month(month);
    ALTER TABLE public.monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_earlier;
    -- The months after it that no row is of come along, because the partitions must leave no gap.
    empty_month := month + interval '1 month';
    WHILE empty_month < upper_end LOOP
        EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics'
                       ' FOR VALUES FROM (%L) TO (%L)', mlops_internal.name_of_month(empty_month), empty_month,
                       least(empty_month + interval '1 month', upper_end));
        empty_month := empty_month + interval '1 month';
    END LOOP;
    EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics FOR VALUES FROM (%L) TO (%L)',
                   name, month, least(month + interval '1 month', upper_end));
    EXECUTE format('INSERT INTO mlops_internal.%I SELECT * FROM mlops_internal.monitoring_metrics_earlier'
                   ' WHERE timestamp >= %L', name, month);
    DELETE FROM mlops_internal.monitoring_metrics_earlier WHERE timestamp >= month;
    EXECUTE format('ALTER TABLE public.monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_earlier'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', month);
    RETURN name;
END
$function$
""",
    "partitions_older_than(interval)": f"""
CREATE FUNCTION mlops_internal.partitions_older_than(keep interval) RETURNS SETOF text
LANGUAGE plpgsql STABLE STRICT {FUNCTION_SETTINGS}
AS $function$
BEGIN
    IF keep > interval '1000 years' THEN
        RETURN;  -- before the first moment of all
    ELSIF CURRENT_TIMESTAMP - keep >= CURRENT_TIMESTAMP THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('metrics cannot be kept for %s', keep), HINT = 'Give a time above 0, such as 90 days.';
    END IF;
    RETURN QUERY
        SELECT p.partition FROM mlops_internal.metric_partitions() AS p
         WHERE p.upper <= CURRENT_TIMESTAMP - keep
           AND (p.lower > '-infinity' OR EXISTS (SELECT FROM mlops_internal.monitoring_metrics_earlier))
         ORDER BY p.upper;
END
$function$
""",
    "drop_partitions(interval)": f"""
CREATE FUNCTION mlops_internal.drop_partitions(keep interval) RETURNS text[]
LANGUAGE plpgsql STRICT {FUNCTION_SETTINGS}
AS $function$
DECLARE
    old text[];
    start timestamptz;
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    old := ARRAY(SELECT mlops_internal.partitions_older_than(keep));
    IF old = '{{}}' THEN
        RETURN NULL;
    END IF;
    LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE;
    SELECT max(upper) INTO start FROM mlops_internal.metric_partitions() WHERE partition = ANY(old);
    -- The one without a beginning goes along, and comes back empty with the new beginning as its end.
    EXECUTE (SELECT 'DROP TABLE mlops_internal.monitoring_metrics_earlier'
                    || coalesce(string_agg(format(', mlops_internal.%I', name), ''), '')
               FROM unnest(old) AS name WHERE name <> 'monitoring_metrics_earlier');
    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_earlier PARTITION OF public.monitoring_metrics'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', start);
    RETURN old;
END
$function$
""",
    # The next series is looked up in the key, so the rows of a series are not read. By a loop, as engines that cannot
    # recurse over this table can take each step.
    "missing_series(integer)": f"""
CREATE FUNCTION mlops_internal.missing_series(at_most integer DEFAULT NULL)
    RETURNS TABLE (model_name text, metric_type text, metric_name text)
LANGUAGE plpgsql STABLE {FUNCTION_SETTINGS}
AS $function$
DECLARE
    missing integer := 0;
BEGIN
    SELECT m.model_name, m.metric_type, m.metric_name INTO model_name, metric_type, metric_name
      FROM public.monitoring_metrics AS m
     ORDER BY m.model_name, m.metric_type, m.metric_name LIMIT 1;
    WHILE FOUND LOOP
        IF NOT EXISTS (SELECT FROM mlops_internal.metric_series AS s
                        WHERE (s.model_name, s.metric_type, s.metric_name)
                            = (missing_series.model_name, missing_series.metric_type, missing_series.metric_name)) THEN
            RETURN NEXT;
            missing := missing + 1;
            EXIT WHEN missing = at_most;
        END IF;
        SELECT m.model_name, m.metric_type, m.metric_name INTO model_name, metric_type, metric_name
          FROM public.monitoring_metrics AS m
         WHERE (m.model_name, m.metric_type, m.metric_name)
             > (missing_series.model_name, missing_series.metric_type, missing_series.metric_name)
         ORDER BY m.model_name, m.metric_type, m.metric_name LIMIT 1;
    END LOOP;
END
$function$
""",
    "register_missing_series()": f"""
CREATE FUNCTION mlops_internal.register_missing_series() RETURNS bigint
LANGUAGE sql {FUNCTION_SETTINGS}
AS $function$
    WITH registered AS (
        INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name)
        SELECT model_name, metric_type, metric_name FROM mlops_internal.missing_series()
            ON CONFLICT DO NOTHING RETURNING 1
    )
    SELECT nullif(count(*), 0) FROM registered
$function$
""",
    # Of the metrics, the last month tells: no index is on their id alone.
    "late_sequences()": f"""
CREATE FUNCTION mlops_internal.late_sequences() RETURNS TABLE (sequence text, rows_of text)
LANGUAGE sql STABLE {FUNCTION_SETTINGS}
AS $function$
    SELECT used.sequence, used.rows_of
      FROM (VALUES ('model_versions_id_seq', 'model_versions', (SELECT max(id) FROM public.model_versions)),
                   ('monitoring_metrics_id_seq', 'monitoring_metrics',
                    (SELECT max(id) FROM public.monitoring_metrics WHERE timestamp >= CURRENT_TIMESTAMP - interval '1 month')),
                   ('retraining_decisions_id_seq', 'retraining_decisions', (SELECT max(id) FROM public.retraining_decisions))
           ) AS used (sequence, rows_of, last)
     WHERE used.last > coalesce(pg_sequence_last_value(to_regclass('public.' || used.sequence)), 0)
$function$
""",
    "advance_sequences()": f"""
CREATE FUNCTION mlops_internal.advance_sequences() RETURNS text[]
LANGUAGE plpgsql {FUNCTION_SETTINGS}
AS $function$
DECLARE
    late record;
    advanced text[];
BEGIN
    PERFORM mlops_internal.begin_maintenance();
    FOR late IN SELECT * FROM mlops_internal.late_sequences() LOOP
        -- Not back: meanwhile somebody may have taken ids.
        EXECUTE format('SELECT setval(%L, greatest(max(id), (SELECT last_value FROM public.%I))) FROM public.%I',
                       'public.' || late.sequence, late.sequence, late.rows_of);
        advanced := advanced || late.sequence;
    END LOOP;
    RETURN advanced;
END
$function$
""",
    "maintain(interval, integer)": """
CREATE PROCEDURE mlops_internal.maintain(keep interval DEFAULT NULL, months_ahead integer DEFAULT 3)
LANGUAGE plpgsql
AS $procedure$
BEGIN
    LOOP
        -- Not longer than anybody notices: whoever waits for the table keeps all others waiting behind.
        SET LOCAL lock_timeout = '300ms';
        EXIT WHEN mlops_internal.create_next_partition(months_ahead) IS NULL;
        COMMIT;
    END LOOP;
    COMMIT;
    LOOP
        SET LOCAL lock_timeout = '300ms';
        EXIT WHEN mlops_internal.move_earlier_month() IS NULL;
        COMMIT;
    END LOOP;
    COMMIT;
    SET LOCAL lock_timeout = '300ms';
    PERFORM mlops_internal.drop_partitions(keep);
    COMMIT;
    SET LOCAL lock_timeout = '300ms';
    PERFORM mlops_internal.register_missing_series();
    PERFORM mlops_internal.advance_sequences();
END
$procedure$
""",
}

COMMENTS = {
    "FUNCTION mlops_internal.register_series(text, text, text)": "Enter a series into the catalogue, unless it is there.",
    "FUNCTION mlops_internal.register_new_series()": "Enter the series of the rows that a statement inserted.",
    "FUNCTION mlops_internal.metric_partitions()": "The partitions of monitoring_metrics, oldest first, with their bounds.",
    "FUNCTION mlops_internal.begin_maintenance()": "Wait for another maintenance to end, and let the next one wait.",
    "FUNCTION mlops_internal.name_of_month(timestamptz)": "The name that the partition of a month is to get.",
    "FUNCTION mlops_internal.create_next_partition(integer)": "Create the next month that is missing, up to months_ahead"
    " after this one; returns its name, or NULL if none is missing.",
    "FUNCTION mlops_internal.move_earlier_month()": "Move the newest month out of monitoring_metrics_earlier into a"
    " partition of its own; returns its name, or NULL if nothing is to be moved.",
    "FUNCTION mlops_internal.partitions_older_than(interval)": "The partitions all of whose rows are older than that.",
    "FUNCTION mlops_internal.drop_partitions(interval)": "Drop the partitions all of whose rows are older than that;"
    " returns their names, or NULL if there are none.",
    "FUNCTION mlops_internal.missing_series(integer)": "The series that rows are of, and that the catalogue lacks.",
    "FUNCTION mlops_internal.register_missing_series()": "Enter them; returns how many, or NULL if none is missing.",
    "FUNCTION mlops_internal.late_sequences()": "The sequences that would give ids that rows have already.",
    "FUNCTION mlops_internal.advance_sequences()": "Let them go on after the rows; returns their names, or NULL if none is"
    " late.",
    "PROCEDURE mlops_internal.maintain(interval, integer)": "Create partitions ahead, move rows into their months, drop what"
    " is older than keep (NULL: nothing), a transaction each; then register missing series and advance late sequences.",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    for signature, create in FUNCTIONS.items():
        op.execute(create)
        op.execute(f"REVOKE EXECUTE ON ROUTINE mlops_internal.{signature} FROM PUBLIC")
    for routine, comment in COMMENTS.items():
        op.execute(f"COMMENT ON {routine} IS $comment${comment}$comment$")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    for signature in reversed(FUNCTIONS):
        op.execute(f"DROP ROUTINE mlops_internal.{signature}")
    for routine in list(COMMENTS)[:2]:
        op.execute(f"COMMENT ON {routine} IS NULL")
