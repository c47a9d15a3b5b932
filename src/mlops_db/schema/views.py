"""The three analytical views at head: their one definition in code. Revisions hold frozen copies of what they create.

All of them answer newest first, because the specification's queries put a LIMIT on them without an ORDER BY.
"""

from collections.abc import Mapping
from types import MappingProxyType

# A gate has passed or failed only if a JSON boolean says so, bare or under "passed"; anything else is unknown. The
# evaluation stops at the first failure, so a gate without a key did not run, and "none failed" is not "all passed".
# JSONB does not keep the order of keys: the order of evaluation is that of the six known gates, others come after them.
V_DECISION_HISTORY = """
SELECT
    d.id,
    d.decision_timestamp,
    d.action,
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
    d.created_at
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
        count(*) FILTER (WHERE known.gate IS NOT NULL AND outcome.passed) = 6 AS all_gates_passed
    FROM (
        VALUES
            (1, 'sufficient_samples'),
            (2, 'minimum_coverage'),
            (3, 'promotion_cooldown'),
            (4, 'metric_improvement'),
            (5, 'calibration_maintained'),
            (6, 'no_segment_regression')
    ) AS known (position, gate)
    FULL JOIN jsonb_each(
        CASE WHEN jsonb_typeof(d.gate_results) = 'object' THEN d.gate_results ELSE '{}' END
    ) AS result (key, value) ON result.key = known.gate
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN result.value IN ('true', 'false') THEN result.value
                WHEN result.value -> 'passed' IN ('true', 'false') THEN result.value -> 'passed'
            END = 'true' AS passed
    ) AS outcome
) AS g
ORDER BY d.decision_timestamp DESC NULLS LAST, d.id DESC
"""

# A version was in production from its promotion to the next one. Candidates that were never promoted sort last, so
# they are nobody's predecessor. Versions are text ('10' sorts before '9'): time orders them.
V_MODEL_TIMELINE = """
SELECT
    id,
    mlflow_run_id,
    model_version,
    status,
    coalesce(status = 'production', false) AS in_production,
    f1_score,
    brier_score,
    created_at,
    promoted_at,
    CASE WHEN promoted_at IS NOT NULL THEN lead(promoted_at) OVER promotions END AS production_until,
    CASE WHEN promoted_at IS NOT NULL THEN lag(model_version) OVER promotions END AS previous_version,
    CASE WHEN promoted_at IS NOT NULL THEN f1_score - lag(f1_score) OVER promotions END AS f1_delta,
    CASE WHEN promoted_at IS NOT NULL THEN brier_score - lag(brier_score) OVER promotions END AS brier_delta
FROM model_versions
WINDOW promotions AS (ORDER BY promoted_at, id)
ORDER BY created_at DESC NULLS LAST, id DESC
"""

# Timestamps without time zone hold UTC, so age is taken against the UTC clock, whatever the session's time zone.
V_RECENT_MONITORING = """
SELECT
    id,
    timestamp,
    metric_type,
    metric_name,
    metric_value,
    previous_value,
    metric_value - previous_value AS delta,
    CASE WHEN isfinite(timestamp) THEN (CURRENT_TIMESTAMP AT TIME ZONE 'UTC') - timestamp END AS age,
    metadata,
    created_at
FROM (
    SELECT
        m.*,
        lead(m.metric_value) OVER newest_first AS previous_value,
        row_number() OVER newest_first AS recency
    FROM monitoring_metrics AS m
    WINDOW newest_first AS (
        PARTITION BY m.metric_type, m.metric_name ORDER BY m.timestamp DESC NULLS LAST, m.id DESC
    )
) AS series
WHERE recency = 1
ORDER BY timestamp DESC NULLS LAST, id DESC
"""

VIEWS: Mapping[str, str] = MappingProxyType(
    {
        "v_decision_history": V_DECISION_HISTORY,
        "v_model_timeline": V_MODEL_TIMELINE,
        "v_recent_monitoring": V_RECENT_MONITORING,
    }
)
