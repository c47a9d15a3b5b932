-- Copy the rows of all partitions into the table that is not partitioned.
-- Revisions: 0016 (downgrade)

INSERT INTO public.monitoring_metrics
       (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name)
SELECT id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name
  FROM mlops_internal.monitoring_metrics ORDER BY id;
