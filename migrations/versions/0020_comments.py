"""Say in the database what every table, column and view is.

Why: BI tools, psql and docs/schema.md show comments; who reads a table need not look for its documentation.
Locks: SHARE UPDATE EXCLUSIVE on the tables and ACCESS EXCLUSIVE on none: COMMENT keeps nobody from reading or writing.
Loss on downgrade: the comments, those included that somebody had set by hand on the same objects before.
"""

from alembic import op

revision = "0020"
down_revision = "0019"

# Of each table and view, under "", and of its columns.
COMMENTS = {
    "TABLE public.model_versions": {
        "": "The versions of every model: who made them, how good they are, and which one is in production.",
        "id": "Counts the versions of all models.",
        "mlflow_run_id": "The MLflow run that made the version.",
        "model_version": "The version, as text: 10 sorts before 9.",
        "status": "Stage: staging, production (at most one of each model) or archived.",
        "f1_score": "F1 score, 0 to 1; NULL if it was not measured.",
        "brier_score": "Brier score, 0 to 1, lower is better; NULL if not measured.",
        "created_at": "When the version was registered.",
        "promoted_at": "When it was promoted last; NULL if never.",
        "model_name": "The model that it is a version of.",
    },
    "TABLE public.monitoring_metrics": {
        "": "What monitoring measured, one row a value; partitioned by month.",
        "id": "Counts the rows; of two with the same timestamp the greater one is the newer.",
        "timestamp": "The moment that the value is about.",
        "metric_type": "The kind of metric: drift, coverage, performance and others.",
        "metric_name": "The metric, such as a feature's drift score.",
        "metric_value": "The value; NULL if it could not be computed.",
        "metadata": "Details, whatever the writer found worth keeping.",
        "created_at": "When the row was written.",
        "model_name": "The model that was measured.",
    },
    "TABLE public.retraining_decisions": {
        "": "Every decision about a retraining candidate, with the results of its gates.",
        "id": "Counts the decisions about all models.",
        "decision_timestamp": "When it was decided.",
        "action": "What was decided: promote, reject or pending.",
        "candidate_mlflow_run_id": "The candidate's MLflow run, registered or not; NULL if it is about no candidate.",
        "gate_results": "One object, a key for each gate that ran; NULL if none did, as for a first deployment.",
        "reasoning": "Why, in words.",
        "created_at": "When the decision was recorded.",
        "model_name": "The model that it is about.",
        "is_rollback": "Whether a rollback made it: it rejects the version that goes, and promotes the one that comes back.",
        "decided_by": "Who decided: the session's login unless another was named; NULL before revision 0010.",
    },
    "TABLE mlops_internal.metric_series": {
        "": "The metric series that there are, and what is expected of them; filled by a trigger.",
        "model_name": "The model that is measured.",
        "metric_type": "The kind of metric.",
        "metric_name": "The metric.",
        "expected_interval": "How often a value is expected; v_recent_monitoring shows a series without one in that time as stale.",
        "lower_threshold": "The least value that is normal; NULL for none.",
        "upper_threshold": "The greatest value that is normal; NULL for none.",
        "registered_at": "When its first value was written, or its expectations were.",
    },
    "VIEW public.v_decision_history": {
        "": "Every decision about a candidate, newest first, with the candidate's version and its gates counted.",
        "id": "The decision's id.",
        "decision_timestamp": "When it was decided.",
        "model_name": "The model that it is about.",
        "action": "promote, reject or pending.",
        "is_rollback": "Whether a rollback made it.",
        "candidate_mlflow_run_id": "The candidate's MLflow run; it need not be registered.",
        "model_version": "The candidate's version; NULL if it is not registered.",
        "model_status": "The candidate's stage today: staging, production or archived.",
        "f1_score": "The candidate's F1 score, 0 to 1.",
        "brier_score": "The candidate's Brier score, 0 to 1; lower is better.",
        "promoted_at": "When the candidate was promoted last.",
        "gates_passed": "How many gates passed: a JSON true, bare or under passed.",
        "gates_failed": "How many gates failed: a JSON false, bare or under passed.",
        "gates_unknown": "How many gates have a result that says neither.",
        "gates_not_run": "How many of the six known gates have no result: it stops at the first failure.",
        "first_failed_gate": "The first gate that failed, in the order of the evaluation.",
        "all_gates_passed": "Whether all six known gates passed.",
        "promoted_with_failed_gate": "Whether it was promoted although a gate failed.",
        "gate_results": "The results as they were recorded.",
        "reasoning": "Why, in words.",
        "created_at": "When the decision was recorded.",
        "decided_by": "Who decided; NULL if it was recorded before that was.",
    },
    "VIEW public.v_model_timeline": {
        "": "Every model version, newest first: since when it was in production, until when, and what it changed.",
        "id": "The version's id.",
        "model_name": "The model that it is a version of.",
        "mlflow_run_id": "The MLflow run that made it.",
        "model_version": "Its version, as text.",
        "status": "Its stage: staging, production or archived.",
        "in_production": "Whether it is in production.",
        "f1_score": "F1 score, 0 to 1.",
        "brier_score": "Brier score, 0 to 1; lower is better.",
        "created_at": "When it was registered.",
        "promoted_at": "When it was promoted last; NULL if never.",
        "production_until": "When, after that, another version of its model was promoted; NULL if none was yet.",
        "previous_version": "The version of its model that was promoted before that.",
        "f1_delta": "By how much its F1 score is higher than that one's.",
        "brier_delta": "By how much its Brier score is higher than that one's; below zero is better.",
    },
    "VIEW public.v_recent_monitoring": {
        "": "The newest value of every metric series, newest first, beside the one before it and what is expected.",
        "id": "The newest row's id; NULL if the series has no row.",
        "timestamp": "The moment that the newest value is about.",
        "model_name": "The model that was measured.",
        "metric_type": "The kind of metric: drift, coverage, performance and others.",
        "metric_name": "The metric.",
        "metric_value": "The newest value; NULL if it could not be computed.",
        "previous_value": "The value before it.",
        "delta": "The newest value less the one before it.",
        "age": "The time since the newest value.",
        "expected_interval": "How often a value is expected; NULL if nobody said.",
        "stale": "Whether the newest value is older than that.",
        "lower_threshold": "The least value that is normal.",
        "upper_threshold": "The greatest value that is normal.",
        "health": "ok, low, high (beyond a threshold), failed (no value), stale, or missing (no row).",
        "metadata": "The newest row's details.",
        "created_at": "When the newest row was written.",
    },
}


def upgrade() -> None:
    comment(take_away=False)


def downgrade() -> None:
    comment(take_away=True)


def comment(*, take_away: bool) -> None:
    for relation, texts in COMMENTS.items():
        for column, text in texts.items():
            target = f"COLUMN {relation.partition(' ')[2]}.{column}" if column else relation
            op.execute(f"COMMENT ON {target} IS {'NULL' if take_away else f'$comment${text}$comment$'}")
