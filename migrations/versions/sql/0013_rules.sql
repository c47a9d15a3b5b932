-- The rules of monitoring_metrics for new rows, in one constraint; revision 0014 has the old rows verified in one pass.
-- The table of revision 0019 has a constraint for each rule.
-- Revisions: 0013, 0014 (downgrade)

ALTER TABLE public.monitoring_metrics ADD CONSTRAINT monitoring_metrics_rules_check CHECK (
    metric_type IS NOT NULL
    AND metric_name IS NOT NULL
    AND metric_value > '-Infinity' AND metric_value < 'Infinity'
    AND timestamp IS NOT NULL
    AND timestamp >= timestamp '0001-01-01' AND timestamp < timestamp '10000-01-01'
    AND created_at IS NOT NULL
    AND created_at >= timestamp '0001-01-01' AND created_at < timestamp '10000-01-01'
) NOT VALID;
