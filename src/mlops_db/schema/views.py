"""The three analytical views of schema public at head. Revisions hold frozen copies of the views that they create.

All of them return the newest row first, because the specification's queries put a LIMIT on them without an ORDER BY.
"""

from collections.abc import Mapping
from types import MappingProxyType

from mlops_db.schema.limits import GATES

KNOWN_GATES = ",\n            ".join(f"({position}, '{gate}')" for position, gate in enumerate(GATES, start=1))

# A gate has passed or failed only if a JSON boolean says so, bare or under "passed"; anything else is unknown. The
# evaluation stops at the first failure, so a gate without a key did not run, and "none failed" is not "all passed".
# JSONB does not keep the order of keys: the order of evaluation is that of the six known gates, others come after them.
# jsonb_each stands in a query of its own: beside other tables, Citus would run it without the row that it reads, and
# the coordinator would crash.
V_DECISION_HISTORY = f"""
SELECT
    d.id,
    d.decision_timestamp,
    d.model_name,
    d.action,
    d.is_rollback,
    d.candidate_mlflow_run_id,
    v.model_version,
    v.status AS model_status,
    v.f1_score,
    v.brier_score,
    v.promoted_at,
    g.gates_passed,
    g.gates_failed,
    g.gates_unknown,
    g.gates_not_run,
    g.first_failed_gate,
    g.all_gates_passed,
    coalesce(d.action = 'promote' AND g.gates_failed > 0, false) AS promoted_with_failed_gate,
    d.gate_results,
    d.reasoning,
    d.created_at,
    d.decided_by
FROM retraining_decisions AS d
LEFT JOIN model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE outcome.passed) AS gates_passed,
        count(*) FILTER (WHERE NOT outcome.passed) AS gates_failed,
        count(*) FILTER (WHERE result.value IS NOT NULL AND outcome.passed IS NULL) AS gates_unknown,
        count(*) FILTER (WHERE result.value IS NULL) AS gates_not_run,
        (array_agg(coalesce(known.gate, result.key) ORDER BY known.position, result.key)
            FILTER (WHERE NOT outcome.passed))[1] AS first_failed_gate,
        count(*) FILTER (WHERE known.gate IS NOT NULL AND outcome.passed) = {len(GATES)} AS all_gates_passed
    FROM (
        VALUES
            {KNOWN_GATES}
    ) AS known (position, gate)
    FULL JOIN (
        SELECT key, value
        FROM jsonb_each(CASE WHEN jsonb_typeof(d.gate_results) = 'object' THEN d.gate_results ELSE '{{}}' END)
    ) AS result ON result.key = known.gate
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN result.value IN ('true', 'false') THEN result.value
                WHEN result.value -> 'passed' IN ('true', 'false') THEN result.value -> 'passed'
            END = 'true' AS passed
    ) AS outcome
) AS g
ORDER BY d.decision_timestamp DESC, d.id DESC
"""

# A version was in production from its promotion to the next one of its model. model_versions keeps the latest promotion
# of each; earlier ones, of versions that were rolled back to, are in the decisions. The version in production is the
# last one, whatever the moments say: one that was put there by hand may have none, or an old one, and perhaps a
# decision. To promote the version that is in production changes nothing. Versions are text ('10' sorts before '9'):
# time orders them.
# Each step keeps model_name, and partitions or joins by it: so WHERE model_name = ... reaches the tables and their
# indexes, instead of computing the periods of all models first.
PERIODS = """
WITH promotions AS (
    SELECT model_name, id AS version_id, promoted_at FROM model_versions WHERE promoted_at IS NOT NULL
    UNION
    SELECT d.model_name, v.id, d.decision_timestamp
    FROM retraining_decisions AS d
    JOIN model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id AND v.model_name = d.model_name
    WHERE d.action = 'promote' AND (d.decision_timestamp < v.promoted_at OR v.status = 'production')
    UNION
    SELECT model_name, id, NULL::timestamptz AS promoted_at FROM model_versions WHERE status = 'production'
),
changes AS (
    SELECT p.*, lag(p.version_id) OVER in_order AS before_id
    FROM promotions AS p
    WINDOW in_order AS (PARTITION BY p.model_name ORDER BY p.promoted_at, p.version_id)
),
periods AS (
    SELECT
        c.model_name,
        c.version_id,
        c.promoted_at AS since,
        lead(c.promoted_at) OVER in_order AS until,
        c.before_id
    FROM changes AS c
    WHERE c.before_id IS DISTINCT FROM c.version_id
    WINDOW in_order AS (PARTITION BY c.model_name ORDER BY c.promoted_at, c.version_id)
)"""

V_MODEL_TIMELINE = f"""{PERIODS},
latest AS (
    SELECT DISTINCT ON (model_name, version_id) * FROM periods ORDER BY model_name, version_id, since DESC
)
SELECT
    v.id,
    v.model_name,
    v.mlflow_run_id,
    v.model_version,
    v.status,
    v.status = 'production' AS in_production,
    v.f1_score,
    v.brier_score,
    v.created_at,
    latest.since AS promoted_at,
    latest.until AS production_until,
    before.model_version AS previous_version,
    v.f1_score - before.f1_score AS f1_delta,
    v.brier_score - before.brier_score AS brier_delta
FROM model_versions AS v
LEFT JOIN latest ON latest.model_name = v.model_name AND latest.version_id = v.id
LEFT JOIN model_versions AS before ON before.model_name = v.model_name AND before.id = latest.before_id
ORDER BY v.created_at DESC, v.id DESC
"""


# For each series of the catalogue its newest two rows, by the primary key: the partitions are in the order of time, so
# PostgreSQL probes the newest ones and stops. A series without rows stays, or a silent one would vanish. Subtracting
# two finite values can leave what a double holds, and that would fail the whole view.
# The name of a model is compared with both tables, and not with one through the other: so Citus sends that query to the
# one shard that has the model, which it does not do for the view.
def recent_monitoring(*, metrics: str = "monitoring_metrics", model: str | None = None) -> str:
    """The query of v_recent_monitoring.

    Args:
        metrics: the table's name, as the search path needs it.
        model: SQL for the only model's name, such as a parameter; None: all models.
    """
    same_model = model or "series.model_name"
    condition = f"\nWHERE series.model_name = {model}" if model else ""
    return f"""
SELECT
    newest.id,
    newest.timestamp,
    series.model_name,
    series.metric_type,
    series.metric_name,
    newest.metric_value,
    newest.previous_value,
    CASE
        WHEN abs(newest.metric_value) < 8e307 AND abs(newest.previous_value) < 8e307
            THEN newest.metric_value - newest.previous_value
    END AS delta,
    CURRENT_TIMESTAMP - newest.timestamp AS age,
    series.expected_interval,
    coalesce(
        CURRENT_TIMESTAMP - newest.timestamp > series.expected_interval, series.expected_interval IS NOT NULL
    ) AS stale,
    series.lower_threshold,
    series.upper_threshold,
    CASE
        WHEN newest.id IS NULL THEN 'missing'
        WHEN CURRENT_TIMESTAMP - newest.timestamp > series.expected_interval THEN 'stale'
        WHEN newest.metric_value IS NULL THEN 'failed'
        WHEN newest.metric_value < series.lower_threshold THEN 'low'
        WHEN newest.metric_value > series.upper_threshold THEN 'high'
        WHEN newest.metadata -> 'drift_detected' = 'true' THEN 'drifted'
        ELSE 'ok'
    END AS health,
    newest.metadata,
    newest.created_at
FROM mlops_internal.metric_series AS series
LEFT JOIN LATERAL (
    SELECT two.*, lead(two.metric_value) OVER newest_first AS previous_value
    FROM (
        SELECT m.id, m.timestamp, m.metric_value, m.metadata, m.created_at
        FROM {metrics} AS m
        WHERE m.model_name = {same_model}
            AND m.metric_type = series.metric_type
            AND m.metric_name = series.metric_name
        ORDER BY m.timestamp DESC, m.id DESC
        LIMIT 2
    ) AS two
    WINDOW newest_first AS (ORDER BY two.timestamp DESC, two.id DESC)
    ORDER BY two.timestamp DESC, two.id DESC
    LIMIT 1
) AS newest ON true{condition}
ORDER BY newest.timestamp DESC NULLS LAST, newest.id DESC, series.model_name, series.metric_type, series.metric_name
"""


V_RECENT_MONITORING = recent_monitoring()

VIEWS: Mapping[str, str] = MappingProxyType(
    {
        "v_decision_history": V_DECISION_HISTORY,
        "v_model_timeline": V_MODEL_TIMELINE,
        "v_recent_monitoring": V_RECENT_MONITORING,
    }
)

# What BI tools show: of each view, under "", and of its columns.
VIEW_COMMENTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "v_decision_history": {
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
        "v_model_timeline": {
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
            "promoted_at": "When its latest period in production began; NULL if there was none, or it is unknown.",
            "production_until": "When that period ended, because another version replaced it; NULL if none did.",
            "previous_version": "The version of its model that was in production before that period.",
            "f1_delta": "By how much its F1 score is higher than that one's.",
            "brier_delta": "By how much its Brier score is higher than that one's; below zero is better.",
        },
        "v_recent_monitoring": {
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
            "health": "ok, drifted (so its details say), low, high (beyond a threshold), failed, stale, or missing.",
            "metadata": "The newest row's details.",
            "created_at": "When the newest row was written.",
        },
    }
)
