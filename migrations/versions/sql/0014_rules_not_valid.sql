-- The rules of monitoring_metrics as revision 0013 leaves them: for new rows.
-- Revisions: 0014 (downgrade)

ALTER TABLE public.monitoring_metrics DROP CONSTRAINT monitoring_metrics_rules_check;

ALTER TABLE public.monitoring_metrics ADD CONSTRAINT monitoring_metrics_rules_check CHECK (
    metric_type IS NOT NULL
    AND metric_name IS NOT NULL
    AND metric_value > '-Infinity' AND metric_value < 'Infinity'
    AND timestamp IS NOT NULL
    AND timestamp >= timestamp '0001-01-01' AND timestamp < timestamp '10000-01-01'
    AND created_at IS NOT NULL
    AND created_at >= timestamp '0001-01-01' AND created_at < timestamp '10000-01-01'
) NOT VALID;
