-- The key of all partitions. The key of monitoring_metrics_legacy becomes its part of it; those of the others are built
-- (manual, "CREATE INDEX": an equivalent index of a partition is attached).
-- Revisions: 0017

-- squawk-ignore constraint-missing-not-valid, adding-serial-primary-key-field
ALTER TABLE public.monitoring_metrics ADD CONSTRAINT monitoring_metrics_pkey PRIMARY KEY (model_name, metric_type, metric_name, timestamp, id)
    INCLUDE (metric_value);
