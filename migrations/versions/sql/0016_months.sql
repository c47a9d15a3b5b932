-- The partitions of the copy: a month for each from the oldest row to three months ahead, and two without an end. Rows
-- older than ten years stay in the first one: a stray row of 1970 is not worth hundreds of partitions.
-- Revisions: 0016

DO $months$
DECLARE
    zone constant text := coalesce(nullif(current_setting('mlops_db.legacy_timezone', true), ''), 'UTC');
    this_month constant timestamptz := date_trunc('month', CURRENT_TIMESTAMP, 'UTC');
    month timestamptz;
    first timestamptz;
    years boolean;
BEGIN
    -- EXECUTE may read in parallel.
    EXECUTE $read$
        SELECT least(date_trunc('month', timezone($1, min(timestamp) FILTER (WHERE timestamp >= $2)), 'UTC'), $3),
               coalesce(timezone('UTC', timezone($1, least(min(timestamp), min(created_at)))) >= timestamp '0001-01-01'
                        AND timezone('UTC', timezone($1, greatest(max(timestamp), max(created_at))))
                            < timestamp '10000-01-01', true)
          FROM public.monitoring_metrics
        $read$ INTO first, years USING zone, timezone('UTC', this_month) - interval '10 years', this_month;
    IF NOT years THEN
        RAISE check_violation USING
            MESSAGE = 'rows of monitoring_metrics are not of the years 1 to 9999 in UTC; nothing was changed',
            HINT = 'Correct the oldest or newest rows, or give another -x legacy-timezone: SELECT * FROM'
                   ' monitoring_metrics ORDER BY timestamp';
    END IF;
    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_earlier'
                   ' PARTITION OF mlops_internal.monitoring_metrics_copy FOR VALUES FROM (MINVALUE) TO (%L)', first);
    month := first;
    WHILE month <= this_month + interval '3 months' LOOP
        EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF mlops_internal.monitoring_metrics_copy'
                       ' FOR VALUES FROM (%L) TO (%L)',
                       'monitoring_metrics_' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
        month := month + interval '1 month';
    END LOOP;
    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_later'
                   ' PARTITION OF mlops_internal.monitoring_metrics_copy FOR VALUES FROM (%L) TO (MAXVALUE)', month);
END $months$;
