-- Describe the tables, the views and their columns.
-- Revisions: 0023

COMMENT ON TABLE public.model_versions IS
    $comment$The versions of every model: who made them, how good they are, and which one is in production.$comment$;
COMMENT ON COLUMN public.model_versions.id IS $comment$Counts the versions of all models.$comment$;
COMMENT ON COLUMN public.model_versions.mlflow_run_id IS $comment$The MLflow run that made the version.$comment$;
COMMENT ON COLUMN public.model_versions.model_version IS $comment$The version, as text: 10 sorts before 9.$comment$;
COMMENT ON COLUMN public.model_versions.status IS
    $comment$Stage: staging, production (at most one of each model) or archived.$comment$;
COMMENT ON COLUMN public.model_versions.f1_score IS $comment$F1 score, 0 to 1; NULL if it was not measured.$comment$;
COMMENT ON COLUMN public.model_versions.brier_score IS
    $comment$Brier score, 0 to 1, lower is better; NULL if not measured.$comment$;
COMMENT ON COLUMN public.model_versions.created_at IS $comment$When the version was registered.$comment$;
COMMENT ON COLUMN public.model_versions.promoted_at IS $comment$When it was promoted last; NULL if never.$comment$;
COMMENT ON COLUMN public.model_versions.model_name IS $comment$The model that it is a version of.$comment$;

COMMENT ON TABLE public.monitoring_metrics IS
    $comment$What monitoring measured, one row a value; partitioned by month.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.id IS
    $comment$Counts the rows; of two with the same timestamp the greater one is the newer.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.timestamp IS $comment$The moment that the value is about.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.metric_type IS
    $comment$The kind of metric: drift, coverage, performance and others.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.metric_name IS
    $comment$The metric, such as a feature's drift score.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.metric_value IS
    $comment$The value; NULL if it could not be computed.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.metadata IS
    $comment$Details, whatever the writer found worth keeping.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.created_at IS $comment$When the row was written.$comment$;
COMMENT ON COLUMN public.monitoring_metrics.model_name IS $comment$The model that was measured.$comment$;

COMMENT ON TABLE public.retraining_decisions IS
    $comment$Every decision about a retraining candidate, with the results of its gates.$comment$;
COMMENT ON COLUMN public.retraining_decisions.id IS $comment$Counts the decisions about all models.$comment$;
COMMENT ON COLUMN public.retraining_decisions.decision_timestamp IS $comment$When it was decided.$comment$;
COMMENT ON COLUMN public.retraining_decisions.action IS $comment$What was decided: promote, reject or pending.$comment$;
COMMENT ON COLUMN public.retraining_decisions.candidate_mlflow_run_id IS
    $comment$The candidate's MLflow run, registered or not; NULL if it is about no candidate.$comment$;
COMMENT ON COLUMN public.retraining_decisions.gate_results IS
    $comment$One object, a key for each gate that ran; NULL if none did, as for a first deployment.$comment$;
COMMENT ON COLUMN public.retraining_decisions.reasoning IS $comment$Why, in words.$comment$;
COMMENT ON COLUMN public.retraining_decisions.created_at IS $comment$When the decision was recorded.$comment$;
COMMENT ON COLUMN public.retraining_decisions.model_name IS $comment$The model that it is about.$comment$;
COMMENT ON COLUMN public.retraining_decisions.is_rollback IS
    $comment$Whether a rollback made it: it rejects the version that goes, and promotes the one that comes back.$comment$;
COMMENT ON COLUMN public.retraining_decisions.decided_by IS
    $comment$Who decided: the session's login unless another was named; NULL before revision 0009.$comment$;

COMMENT ON TABLE mlops_internal.metric_series IS
    $comment$The metric series that there are, and what is expected of them; filled by a trigger.$comment$;
COMMENT ON COLUMN mlops_internal.metric_series.model_name IS $comment$The model that is measured.$comment$;
COMMENT ON COLUMN mlops_internal.metric_series.metric_type IS $comment$The kind of metric.$comment$;
COMMENT ON COLUMN mlops_internal.metric_series.metric_name IS $comment$The metric.$comment$;
COMMENT ON COLUMN mlops_internal.metric_series.expected_interval IS
    $comment$How often a value is expected; v_recent_monitoring shows a series without one in that time as stale.$comment$;
COMMENT ON COLUMN mlops_internal.metric_series.lower_threshold IS
    $comment$The least value that is normal; NULL for none.$comment$;
COMMENT ON COLUMN mlops_internal.metric_series.upper_threshold IS
    $comment$The greatest value that is normal; NULL for none.$comment$;
COMMENT ON COLUMN mlops_internal.metric_series.registered_at IS
    $comment$When its first value was written, or its expectations were.$comment$;

COMMENT ON VIEW public.v_decision_history IS
    $comment$Every decision about a candidate, newest first, with the candidate's version and its gates counted.$comment$;
COMMENT ON COLUMN public.v_decision_history.id IS $comment$The decision's id.$comment$;
COMMENT ON COLUMN public.v_decision_history.decision_timestamp IS $comment$When it was decided.$comment$;
COMMENT ON COLUMN public.v_decision_history.model_name IS $comment$The model that it is about.$comment$;
COMMENT ON COLUMN public.v_decision_history.action IS $comment$promote, reject or pending.$comment$;
COMMENT ON COLUMN public.v_decision_history.is_rollback IS $comment$Whether a rollback made it.$comment$;
COMMENT ON COLUMN public.v_decision_history.candidate_mlflow_run_id IS
    $comment$The candidate's MLflow run; it need not be registered.$comment$;
COMMENT ON COLUMN public.v_decision_history.model_version IS
    $comment$The candidate's version; NULL if it is not registered.$comment$;
COMMENT ON COLUMN public.v_decision_history.model_status IS
    $comment$The candidate's stage today: staging, production or archived.$comment$;
COMMENT ON COLUMN public.v_decision_history.f1_score IS $comment$The candidate's F1 score, 0 to 1.$comment$;
COMMENT ON COLUMN public.v_decision_history.brier_score IS
    $comment$The candidate's Brier score, 0 to 1; lower is better.$comment$;
COMMENT ON COLUMN public.v_decision_history.promoted_at IS $comment$When the candidate was promoted last.$comment$;
COMMENT ON COLUMN public.v_decision_history.gates_passed IS
    $comment$How many gates passed: a JSON true, bare or under passed.$comment$;
COMMENT ON COLUMN public.v_decision_history.gates_failed IS
    $comment$How many gates failed: a JSON false, bare or under passed.$comment$;
COMMENT ON COLUMN public.v_decision_history.gates_unknown IS
    $comment$How many gates have a result that says neither.$comment$;
COMMENT ON COLUMN public.v_decision_history.gates_not_run IS
    $comment$How many of the six known gates have no result: it stops at the first failure.$comment$;
COMMENT ON COLUMN public.v_decision_history.first_failed_gate IS
    $comment$The first gate that failed, in the order of the evaluation.$comment$;
COMMENT ON COLUMN public.v_decision_history.all_gates_passed IS $comment$Whether all six known gates passed.$comment$;
COMMENT ON COLUMN public.v_decision_history.promoted_with_failed_gate IS
    $comment$Whether it was promoted although a gate failed.$comment$;
COMMENT ON COLUMN public.v_decision_history.gate_results IS $comment$The results as they were recorded.$comment$;
COMMENT ON COLUMN public.v_decision_history.reasoning IS $comment$Why, in words.$comment$;
COMMENT ON COLUMN public.v_decision_history.created_at IS $comment$When the decision was recorded.$comment$;
COMMENT ON COLUMN public.v_decision_history.decided_by IS
    $comment$Who decided; NULL if it was recorded before that was.$comment$;

COMMENT ON VIEW public.v_model_timeline IS
    $comment$Every model version, newest first: since when it was in production, until when, and what it changed.$comment$;
COMMENT ON COLUMN public.v_model_timeline.id IS $comment$The version's id.$comment$;
COMMENT ON COLUMN public.v_model_timeline.model_name IS $comment$The model that it is a version of.$comment$;
COMMENT ON COLUMN public.v_model_timeline.mlflow_run_id IS $comment$The MLflow run that made it.$comment$;
COMMENT ON COLUMN public.v_model_timeline.model_version IS $comment$Its version, as text.$comment$;
COMMENT ON COLUMN public.v_model_timeline.status IS $comment$Its stage: staging, production or archived.$comment$;
COMMENT ON COLUMN public.v_model_timeline.in_production IS $comment$Whether it is in production.$comment$;
COMMENT ON COLUMN public.v_model_timeline.f1_score IS $comment$F1 score, 0 to 1.$comment$;
COMMENT ON COLUMN public.v_model_timeline.brier_score IS $comment$Brier score, 0 to 1; lower is better.$comment$;
COMMENT ON COLUMN public.v_model_timeline.created_at IS $comment$When it was registered.$comment$;
COMMENT ON COLUMN public.v_model_timeline.promoted_at IS $comment$When it was promoted last; NULL if never.$comment$;
COMMENT ON COLUMN public.v_model_timeline.production_until IS
    $comment$When, after that, another version of its model was promoted; NULL if none was yet.$comment$;
COMMENT ON COLUMN public.v_model_timeline.previous_version IS
    $comment$The version of its model that was promoted before that.$comment$;
COMMENT ON COLUMN public.v_model_timeline.f1_delta IS
    $comment$By how much its F1 score is higher than that one's.$comment$;
COMMENT ON COLUMN public.v_model_timeline.brier_delta IS
    $comment$By how much its Brier score is higher than that one's; below zero is better.$comment$;

COMMENT ON VIEW public.v_recent_monitoring IS
    $comment$The newest value of every metric series, newest first, beside the one before it and what is expected.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.id IS
    $comment$The newest row's id; NULL if the series has no row.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.timestamp IS $comment$The moment that the newest value is about.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.model_name IS $comment$The model that was measured.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.metric_type IS
    $comment$The kind of metric: drift, coverage, performance and others.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.metric_name IS $comment$The metric.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.metric_value IS
    $comment$The newest value; NULL if it could not be computed.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.previous_value IS $comment$The value before it.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.delta IS $comment$The newest value less the one before it.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.age IS $comment$The time since the newest value.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.expected_interval IS
    $comment$How often a value is expected; NULL if nobody said.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.stale IS $comment$Whether the newest value is older than that.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.lower_threshold IS $comment$The least value that is normal.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.upper_threshold IS $comment$The greatest value that is normal.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.health IS
    $comment$ok, low, high (beyond a threshold), failed (no value), stale, or missing (no row).$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.metadata IS $comment$The newest row's details.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.created_at IS $comment$When the newest row was written.$comment$;
