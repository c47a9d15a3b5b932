"""Create the three analytical views.

Why: people and dashboards ask for the recent decisions, for the history of versions and for the newest measurements
    without knowing the tables. All views answer newest first, because they are read with LIMIT and without ORDER BY.
Locks: ACCESS SHARE on the three tables, for the catalogue entries only: no reader or writer waits, no row is read.
    Downgrade takes ACCESS EXCLUSIVE on the views for a moment, once their readers are done.
Loss on downgrade: nothing, views hold no rows. What others have built on the views makes the downgrade fail.

v_decision_history counts each decision's gates. A gate has passed or failed only if a JSON boolean says so, bare or
under "passed"; anything else is unknown. The evaluation stops at the first failure, so a gate without a key did not
run, and all_gates_passed asks for all six. JSONB loses the order of keys: first_failed_gate takes the evaluation's.

v_model_timeline takes a version to be in production from its promotion to the next one. Versions are text ('10' sorts
before '9'), so time orders them.

v_recent_monitoring is the newest row of each series (metric_type, metric_name) with the value before it. It reads all
of monitoring_metrics. Timestamps without time zone hold UTC, so age is taken against the UTC clock.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

V_DECISION_HISTORY = """
CREATE VIEW v_decision_history AS
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

V_MODEL_TIMELINE = """
CREATE VIEW v_model_timeline AS
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

V_RECENT_MONITORING = """
CREATE VIEW v_recent_monitoring AS
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


def upgrade() -> None:
    op.execute(V_DECISION_HISTORY)
    op.execute(V_MODEL_TIMELINE)
    op.execute(V_RECENT_MONITORING)


def downgrade() -> None:
    op.execute("DROP VIEW v_recent_monitoring")
    op.execute("DROP VIEW v_model_timeline")
    op.execute("DROP VIEW v_decision_history")
