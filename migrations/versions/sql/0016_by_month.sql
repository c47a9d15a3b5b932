-- The table that is partitioned by month, with 64-bit ids and moments, beside the table that everybody uses.
-- The constraints of NOT NULL have the names that PostgreSQL 18 gives them in the table that everybody uses.
-- Revisions: 0016

CREATE TABLE mlops_internal.monitoring_metrics_copy (
    id bigint CONSTRAINT monitoring_metrics_id_not_null NOT NULL DEFAULT nextval('public.monitoring_metrics_id_seq'),
    timestamp timestamptz CONSTRAINT monitoring_metrics_timestamp_not_null NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    metric_type varchar(100) CONSTRAINT monitoring_metrics_metric_type_not_null NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_name varchar(255) CONSTRAINT monitoring_metrics_metric_name_not_null NOT NULL,
    metric_value double precision,
    metadata jsonb,
    created_at timestamptz CONSTRAINT monitoring_metrics_created_at_not_null NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    model_name varchar(255) CONSTRAINT monitoring_metrics_model_name_not_null NOT NULL DEFAULT 'default',
    CONSTRAINT monitoring_metrics_timestamp_check
        CHECK (timezone('UTC', timestamp) >= timestamp '0001-01-01'
               AND timezone('UTC', timestamp) < timestamp '10000-01-01'),
    CONSTRAINT monitoring_metrics_created_at_check
        CHECK (timezone('UTC', created_at) >= timestamp '0001-01-01'
               AND timezone('UTC', created_at) < timestamp '10000-01-01'),
    CONSTRAINT monitoring_metrics_metric_value_check CHECK (metric_value > '-Infinity' AND metric_value < 'Infinity')
) PARTITION BY RANGE (timestamp);
