-- The key of the table. The index of monitoring_metrics_legacy becomes a part of it; the other partitions' are built
-- (manual, "CREATE INDEX": an equivalent index of a partition is attached).
-- Revisions: 0017

-- squawk-ignore constraint-missing-not-valid, adding-serial-primary-key-field
ALTER TABLE public.monitoring_metrics ADD CONSTRAINT monitoring_metrics_pkey PRIMARY KEY (model_name, metric_type, metric_name, timestamp, id)
    INCLUDE (metric_value);
