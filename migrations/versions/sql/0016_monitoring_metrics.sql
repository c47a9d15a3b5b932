-- The table, partitioned by month, with 64-bit ids and clean values.
-- Revisions: 0016

ALTER SEQUENCE public.monitoring_metrics_id_seq AS bigint;

CREATE TABLE public.monitoring_metrics (
    id bigint NOT NULL DEFAULT nextval('public.monitoring_metrics_id_seq'),
    timestamp timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    metric_type varchar(100) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_name varchar(255) NOT NULL,
    metric_value double precision,
    metadata jsonb,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    model_name varchar(255) NOT NULL DEFAULT 'default',
    CONSTRAINT monitoring_metrics_timestamp_check
        CHECK (timezone('UTC', timestamp) >= timestamp '0001-01-01'
               AND timezone('UTC', timestamp) < timestamp '10000-01-01'),
    CONSTRAINT monitoring_metrics_created_at_check
        CHECK (timezone('UTC', created_at) >= timestamp '0001-01-01'
               AND timezone('UTC', created_at) < timestamp '10000-01-01'),
    CONSTRAINT monitoring_metrics_metric_value_check CHECK (metric_value > '-Infinity' AND metric_value < 'Infinity')
) PARTITION BY RANGE (timestamp);

ALTER SEQUENCE public.monitoring_metrics_id_seq OWNED BY public.monitoring_metrics.id;
