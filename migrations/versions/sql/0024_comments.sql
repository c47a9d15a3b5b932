-- Describe schema reporting, its views with their columns, and its function.
-- Revisions: 0024

COMMENT ON SCHEMA reporting IS
    $comment$What people look at: histories, periods and gates, for dashboards and reports.$comment$;

COMMENT ON VIEW reporting.metric_history IS
    $comment$Every measured value with its bounds and its state. Filter by model, series and time.$comment$;
COMMENT ON COLUMN reporting.metric_history.timestamp IS $comment$The moment that the value is about.$comment$;
COMMENT ON COLUMN reporting.metric_history.model_name IS $comment$The model that was measured.$comment$;
COMMENT ON COLUMN reporting.metric_history.metric_type IS
    $comment$The kind of metric: drift, coverage, performance and others.$comment$;
COMMENT ON COLUMN reporting.metric_history.metric_name IS $comment$The metric.$comment$;
COMMENT ON COLUMN reporting.metric_history.metric_value IS
    $comment$The value; NULL if it could not be computed.$comment$;
COMMENT ON COLUMN reporting.metric_history.lower_threshold IS
    $comment$The least value that is normal today, by the catalogue of series; NULL for none.$comment$;
COMMENT ON COLUMN reporting.metric_history.upper_threshold IS
    $comment$The greatest value that is normal today, by the catalogue of series; NULL for none.$comment$;
COMMENT ON COLUMN reporting.metric_history.own_threshold IS
    $comment$The threshold in the row's own details; NULL if that is no number.$comment$;
COMMENT ON COLUMN reporting.metric_history.low_is_drift IS
    $comment$Whether drift is below its own threshold, as for p-values; NULL if nothing says so.$comment$;
COMMENT ON COLUMN reporting.metric_history.state IS
    $comment$failed (no value), low, high (beyond a threshold), drifted (so its details say), or ok.$comment$;
COMMENT ON COLUMN reporting.metric_history.metadata IS $comment$The row's details.$comment$;
COMMENT ON COLUMN reporting.metric_history.id IS
    $comment$The row's id; of two with the same timestamp the greater one is the newer.$comment$;

COMMENT ON VIEW reporting.production_periods IS
    $comment$Each time that a version was in production, rollbacks included.$comment$;
COMMENT ON COLUMN reporting.production_periods.model_name IS $comment$The model that it is a version of.$comment$;
COMMENT ON COLUMN reporting.production_periods.model_version IS $comment$The version, as text.$comment$;
COMMENT ON COLUMN reporting.production_periods.mlflow_run_id IS $comment$The MLflow run that made it.$comment$;
COMMENT ON COLUMN reporting.production_periods.since IS
    $comment$When it was put into production; NULL if that was by hand, and nobody knows.$comment$;
COMMENT ON COLUMN reporting.production_periods.until IS
    $comment$When another version replaced it; NULL if it is in production, or if nobody knows.$comment$;
COMMENT ON COLUMN reporting.production_periods.in_production IS $comment$Whether it is in production now.$comment$;
COMMENT ON COLUMN reporting.production_periods.returned IS
    $comment$Whether it had been in production before: a rollback.$comment$;
COMMENT ON COLUMN reporting.production_periods.f1_score IS $comment$F1 score, 0 to 1.$comment$;
COMMENT ON COLUMN reporting.production_periods.brier_score IS $comment$Brier score, 0 to 1; lower is better.$comment$;
COMMENT ON COLUMN reporting.production_periods.previous_version IS
    $comment$The version that it replaced; NULL for the first one.$comment$;
COMMENT ON COLUMN reporting.production_periods.f1_delta IS
    $comment$By how much its F1 score is higher than that one's.$comment$;
COMMENT ON COLUMN reporting.production_periods.brier_delta IS
    $comment$By how much its Brier score is higher than that one's; below zero is better.$comment$;

COMMENT ON VIEW reporting.decision_gates IS
    $comment$The gates of each decision, one row a gate: the six known ones, and others that were recorded.$comment$;
COMMENT ON COLUMN reporting.decision_gates.id IS $comment$The decision's id.$comment$;
COMMENT ON COLUMN reporting.decision_gates.decision_timestamp IS $comment$When it was decided.$comment$;
COMMENT ON COLUMN reporting.decision_gates.model_name IS $comment$The model that it is about.$comment$;
COMMENT ON COLUMN reporting.decision_gates.action IS $comment$promote, reject or pending.$comment$;
COMMENT ON COLUMN reporting.decision_gates.candidate_mlflow_run_id IS
    $comment$The candidate's MLflow run; it need not be registered.$comment$;
COMMENT ON COLUMN reporting.decision_gates.model_version IS
    $comment$The candidate's version; NULL if it is not registered.$comment$;
COMMENT ON COLUMN reporting.decision_gates.position IS
    $comment$The gate's place in the evaluation, from 1; others come after the six known ones, by name.$comment$;
COMMENT ON COLUMN reporting.decision_gates.gate IS $comment$The gate.$comment$;
COMMENT ON COLUMN reporting.decision_gates.result IS
    $comment$passed, failed, not run (no result: it stops at the first failure), or unknown (says neither).$comment$;
COMMENT ON COLUMN reporting.decision_gates.details IS
    $comment$The gate's result as it was recorded; NULL if it did not run.$comment$;

COMMENT ON FUNCTION reporting.metric_daily(timestamptz, timestamptz) IS
    $comment$Each series by day (UTC), the whole days that [since, until) touches; failed: without a value.$comment$;
