-- The table of revision 0015, not partitioned, with 32-bit ids, beside the table that everybody uses.
-- Revisions: 0019 (downgrade)

CREATE TABLE mlops_internal.monitoring_metrics_copy (
    id integer CONSTRAINT monitoring_metrics_id_not_null NOT NULL DEFAULT nextval('public.monitoring_metrics_id_seq'),
    timestamp timestamp DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    metric_type varchar(100),
    -- squawk-ignore prefer-text-field
    metric_name varchar(255),
    metric_value double precision,
    metadata jsonb,
    created_at timestamp DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    model_name varchar(255) CONSTRAINT monitoring_metrics_model_name_not_null NOT NULL DEFAULT 'default',
    CONSTRAINT monitoring_metrics_rules_check CHECK (
        metric_type IS NOT NULL
        AND metric_name IS NOT NULL
        AND metric_value > '-Infinity' AND metric_value < 'Infinity'
        AND timestamp IS NOT NULL
        AND timestamp >= timestamp '0001-01-01' AND timestamp < timestamp '10000-01-01'
        AND created_at IS NOT NULL
        AND created_at >= timestamp '0001-01-01' AND created_at < timestamp '10000-01-01'
    )
);
