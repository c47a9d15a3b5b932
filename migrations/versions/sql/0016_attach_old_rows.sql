-- Rewrite the old table with 64-bit ids, make it the partition of all months up to this one, and create the others.
-- The bounds are checked in the same pass as the rewrite: attaching then need not read the table once more (manual,
-- "ALTER TABLE", ATTACH PARTITION). Rows of later months go through a temporary table into theirs.
-- Revisions: 0016

DO $attach$
DECLARE
    this_month constant timestamptz := date_trunc('month', CURRENT_TIMESTAMP, 'UTC');
    next_month constant timestamptz := this_month + interval '1 month';
    first timestamptz;
    has_later boolean;
    month timestamptz := next_month;
BEGIN
    SELECT least(date_trunc('month', min(timestamp), 'UTC'), this_month), coalesce(max(timestamp) >= next_month, false)
      INTO first, has_later
      FROM mlops_internal.monitoring_metrics;
    IF has_later THEN
        CREATE TEMPORARY TABLE later_metrics ON COMMIT DROP AS
            SELECT * FROM mlops_internal.monitoring_metrics WHERE timestamp >= next_month;
        DELETE FROM mlops_internal.monitoring_metrics WHERE timestamp >= next_month;
    END IF;
    EXECUTE format(
        'ALTER TABLE mlops_internal.monitoring_metrics'
        ' DROP CONSTRAINT monitoring_metrics_pkey,'
        ' ALTER COLUMN id TYPE bigint,'
        ' ALTER COLUMN timestamp SET NOT NULL,'
        ' ALTER COLUMN metric_type SET NOT NULL,'
        ' ALTER COLUMN metric_name SET NOT NULL,'
        ' ALTER COLUMN created_at SET NOT NULL,'
        ' ADD CONSTRAINT monitoring_metrics_timestamp_check CHECK (' || $rule$
            timezone('UTC', timestamp) >= timestamp '0001-01-01'
            AND timezone('UTC', timestamp) < timestamp '10000-01-01'$rule$ || '),'
        ' ADD CONSTRAINT monitoring_metrics_created_at_check CHECK (' || $rule$
            timezone('UTC', created_at) >= timestamp '0001-01-01'
            AND timezone('UTC', created_at) < timestamp '10000-01-01'$rule$ || '),'
        ' ADD CONSTRAINT monitoring_metrics_metric_value_check'
        '   CHECK (metric_value > ''-Infinity'' AND metric_value < ''Infinity''),'
        ' ADD CONSTRAINT monitoring_metrics_legacy_bounds CHECK (timestamp >= %L AND timestamp < %L)',
        first, next_month
    );
    ALTER TABLE mlops_internal.monitoring_metrics RENAME TO monitoring_metrics_legacy;
    EXECUTE format('ALTER TABLE public.monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_legacy'
                   ' FOR VALUES FROM (%L) TO (%L)', first, next_month);
    ALTER TABLE mlops_internal.monitoring_metrics_legacy DROP CONSTRAINT monitoring_metrics_legacy_bounds;

    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_earlier PARTITION OF public.monitoring_metrics'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', first);
    WHILE month <= this_month + interval '3 months' LOOP
        EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics FOR VALUES FROM (%L) TO (%L)',
                       'monitoring_metrics_' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
        month := month + interval '1 month';
    END LOOP;
    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_later PARTITION OF public.monitoring_metrics'
                   ' FOR VALUES FROM (%L) TO (MAXVALUE)', month);

    IF has_later THEN
        INSERT INTO public.monitoring_metrics SELECT * FROM pg_temp.later_metrics;
        DROP TABLE pg_temp.later_metrics;
    END IF;
END $attach$;
