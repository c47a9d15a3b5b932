"""The views of schema reporting at head: what people look at. Revisions hold frozen copies of them.

None of them has an order, so that filters on model, series and time reach the keys.
"""

from collections.abc import Mapping
from types import MappingProxyType

from mlops_db.schema.limits import GATES
from mlops_db.schema.views import KNOWN_GATES, PERIODS

# A row's own threshold is what its writer kept in the metadata; what a double cannot hold is none. For p-values low
# means drift: what the writer decided tells which side of the threshold that is. Only a JSON boolean is a decision.
METRIC_HISTORY = """
SELECT
    m.timestamp,
    m.model_name,
    m.metric_type,
    m.metric_name,
    m.metric_value,
    series.lower_threshold,
    series.upper_threshold,
    m.own_threshold,
    m.drifted = (m.metric_value < m.own_threshold) AS low_is_drift,
    CASE
        WHEN m.metric_value IS NULL THEN 'failed'
        WHEN m.metric_value < series.lower_threshold THEN 'low'
        WHEN m.metric_value > series.upper_threshold THEN 'high'
        WHEN m.drifted THEN 'drifted'
        ELSE 'ok'
    END AS state,
    m.metadata,
    m.id
FROM (
    SELECT
        *,
        CASE metadata -> 'drift_detected' WHEN 'true' THEN true WHEN 'false' THEN false END AS drifted,
        CASE
            WHEN jsonb_typeof(metadata -> 'threshold') = 'number'
                AND abs((metadata -> 'threshold')::numeric) < 1e308
                THEN CASE
                    WHEN abs((metadata -> 'threshold')::numeric) >= 1e-300
                        THEN (metadata -> 'threshold')::double precision
                    ELSE 0
                END
        END AS own_threshold
    FROM monitoring_metrics
) AS m
LEFT JOIN mlops_internal.metric_series AS series
    ON series.model_name = m.model_name
    AND series.metric_type = m.metric_type
    AND series.metric_name = m.metric_name
"""

PRODUCTION_PERIODS = f"""{PERIODS}
SELECT
    p.model_name,
    v.model_version,
    v.mlflow_run_id,
    p.since,
    p.until,
    v.status = 'production' AND p.until IS NULL AS in_production,
    count(*) OVER (PARTITION BY p.model_name, p.version_id ORDER BY p.since) > 1 AS returned,
    v.f1_score,
    v.brier_score,
    before.model_version AS previous_version,
    v.f1_score - before.f1_score AS f1_delta,
    v.brier_score - before.brier_score AS brier_delta
FROM periods AS p
JOIN model_versions AS v ON v.model_name = p.model_name AND v.id = p.version_id
LEFT JOIN model_versions AS before ON before.model_name = p.model_name AND before.id = p.before_id
"""

# As v_decision_history reads them: only a JSON boolean says that a gate passed or failed.
DECISION_GATES = f"""
SELECT
    d.id,
    d.decision_timestamp,
    d.model_name,
    d.action,
    d.candidate_mlflow_run_id,
    v.model_version,
    g.position,
    g.gate,
    g.result,
    g.details
FROM retraining_decisions AS d
LEFT JOIN model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id
CROSS JOIN LATERAL (
    SELECT
        coalesce(
            known.position,
            {len(GATES)} + row_number() OVER (PARTITION BY known.position IS NULL ORDER BY recorded.key)
        )::integer AS position,
        coalesce(known.gate, recorded.key) AS gate,
        CASE
            WHEN recorded.value IS NULL THEN 'not run'
            WHEN 'true' IN (recorded.value, recorded.value -> 'passed') THEN 'passed'
            WHEN 'false' IN (recorded.value, recorded.value -> 'passed') THEN 'failed'
            ELSE 'unknown'
        END AS result,
        recorded.value AS details
    FROM (
        VALUES
            {KNOWN_GATES}
    ) AS known (position, gate)
    FULL JOIN (
        SELECT key, value
        FROM jsonb_each(CASE WHEN jsonb_typeof(d.gate_results) = 'object' THEN d.gate_results ELSE '{{}}' END)
    ) AS recorded ON recorded.key = known.gate
) AS g
"""

REPORTING_VIEWS: Mapping[str, str] = MappingProxyType(
    {
        "reporting.metric_history": METRIC_HISTORY,
        "reporting.production_periods": PRODUCTION_PERIODS,
        "reporting.decision_gates": DECISION_GATES,
    }
)

REPORTING_COMMENTS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "reporting.metric_history": {
            "": "Every measured value with its bounds and its state. Filter by model, series and time.",
            "timestamp": "The moment that the value is about.",
            "model_name": "The model that was measured.",
            "metric_type": "The kind of metric: drift, coverage, performance and others.",
            "metric_name": "The metric.",
            "metric_value": "The value; NULL if it could not be computed.",
            "lower_threshold": "The least value that is normal today, by the catalogue of series; NULL for none.",
            "upper_threshold": "The greatest value that is normal today, by the catalogue of series; NULL for none.",
            "own_threshold": "The threshold in the row's own details; NULL if that is no number.",
            "low_is_drift": "Whether drift is below its own threshold, as for p-values; NULL if nothing says so.",
            "state": "failed (no value), low, high (beyond a threshold), drifted (so its details say), or ok.",
            "metadata": "The row's details.",
            "id": "The row's id; of two with the same timestamp the greater one is the newer.",
        },
        "reporting.production_periods": {
            "": "Each time that a version was in production, rollbacks included.",
            "model_name": "The model that it is a version of.",
            "model_version": "The version, as text.",
            "mlflow_run_id": "The MLflow run that made it.",
            "since": "When it was put into production; NULL if that was by hand, and nobody knows.",
            "until": "When another version replaced it; NULL if it is in production, or if nobody knows.",
            "in_production": "Whether it is in production now.",
            "returned": "Whether it had been in production before: a rollback.",
            "f1_score": "F1 score, 0 to 1.",
            "brier_score": "Brier score, 0 to 1; lower is better.",
            "previous_version": "The version that it replaced; NULL for the first one.",
            "f1_delta": "By how much its F1 score is higher than that one's.",
            "brier_delta": "By how much its Brier score is higher than that one's; below zero is better.",
        },
        "reporting.decision_gates": {
            "": "The gates of each decision, one row a gate: the six known ones, and others that were recorded.",
            "id": "The decision's id.",
            "decision_timestamp": "When it was decided.",
            "model_name": "The model that it is about.",
            "action": "promote, reject or pending.",
            "candidate_mlflow_run_id": "The candidate's MLflow run; it need not be registered.",
            "model_version": "The candidate's version; NULL if it is not registered.",
            "position": "The gate's place in the evaluation, from 1; others come after the six known ones, by name.",
            "gate": "The gate.",
            "result": "passed, failed, not run (no result: it stops at the first failure), or unknown (says neither).",
            "details": "The gate's result as it was recorded; NULL if it did not run.",
        },
    }
)
