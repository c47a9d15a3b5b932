-- The catalogue of series, one row for each (model_name, metric_type, metric_name).
-- Revisions: 0015

CREATE TABLE mlops_internal.metric_series (
    -- squawk-ignore prefer-text-field
    model_name varchar(255) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_type varchar(100) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_name varchar(255) NOT NULL,
    expected_interval interval,
    lower_threshold double precision,
    upper_threshold double precision,
    registered_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT metric_series_pkey PRIMARY KEY (model_name, metric_type, metric_name),
    CONSTRAINT metric_series_expected_interval_check
        CHECK (expected_interval > interval '0' AND expected_interval <= interval '1000 years'),
    CONSTRAINT metric_series_lower_threshold_check
        CHECK (lower_threshold > '-Infinity' AND lower_threshold < 'Infinity'),
    CONSTRAINT metric_series_upper_threshold_check
        CHECK (upper_threshold > '-Infinity' AND upper_threshold < 'Infinity'),
    CONSTRAINT metric_series_thresholds_check CHECK (lower_threshold <= upper_threshold)
);
