"""Rebuild the three views: by model, and quick whatever the tables grow to.

Why: several models live side by side now, so each view says which one, and the timeline compares a version with its own
    model's predecessor. A version that was rolled back to was promoted more than once, which the decisions tell.
    v_decision_history may rely on its order being an index's: LIMIT 10 reads ten rows.
    v_recent_monitoring goes from the catalogue of series to the newest rows by the primary key, instead of sorting all
    rows there are, and says what is stale, failed, or beyond its thresholds.
Locks: ACCESS EXCLUSIVE on the views, and ACCESS SHARE on the tables, for a moment.
Loss on downgrade: nothing, views hold no rows.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

V_DECISION_HISTORY = """
CREATE VIEW public.v_decision_history AS
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
FROM public.retraining_decisions AS d
LEFT JOIN public.model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id
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
ORDER BY d.decision_timestamp DESC, d.id DESC
"""

V_MODEL_TIMELINE = """
CREATE VIEW public.v_model_timeline AS
WITH promotions AS (
    SELECT model_name, id AS version_id, promoted_at FROM public.model_versions WHERE promoted_at IS NOT NULL
    UNION
    SELECT d.model_name, v.id, d.decision_timestamp
    FROM public.retraining_decisions AS d
    JOIN public.model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id AND v.model_name = d.model_name
    WHERE d.action = 'promote' AND d.decision_timestamp < v.promoted_at
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
        c.promoted_at,
        c.before_id,
        lead(c.promoted_at) OVER in_order AS production_until
    FROM changes AS c
    WHERE c.before_id IS DISTINCT FROM c.version_id
    WINDOW in_order AS (PARTITION BY c.model_name ORDER BY c.promoted_at, c.version_id)
),
latest AS (
    SELECT DISTINCT ON (model_name, version_id) * FROM periods ORDER BY model_name, version_id, promoted_at DESC
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
    v.promoted_at,
    latest.production_until,
    before.model_version AS previous_version,
    v.f1_score - before.f1_score AS f1_delta,
    v.brier_score - before.brier_score AS brier_delta
FROM public.model_versions AS v
LEFT JOIN latest ON latest.model_name = v.model_name AND latest.version_id = v.id
LEFT JOIN public.model_versions AS before ON before.id = latest.before_id
ORDER BY v.created_at DESC, v.id DESC
"""

V_RECENT_MONITORING = """
CREATE VIEW public.v_recent_monitoring AS
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
    age.age,
    series.expected_interval,
    coalesce(age.age > series.expected_interval, series.expected_interval IS NOT NULL) AS stale,
    series.lower_threshold,
    series.upper_threshold,
    CASE
        WHEN newest.id IS NULL THEN 'missing'
        WHEN age.age > series.expected_interval THEN 'stale'
        WHEN newest.metric_value IS NULL THEN 'failed'
        WHEN newest.metric_value < series.lower_threshold THEN 'low'
        WHEN newest.metric_value > series.upper_threshold THEN 'high'
        ELSE 'ok'
    END AS health,
    newest.metadata,
    newest.created_at
FROM mlops_internal.metric_series AS series
LEFT JOIN LATERAL (
    SELECT two.*, lead(two.metric_value) OVER newest_first AS previous_value
    FROM (
        SELECT m.id, m.timestamp, m.metric_value, m.metadata, m.created_at
        FROM public.monitoring_metrics AS m
        WHERE m.model_name = series.model_name
            AND m.metric_type = series.metric_type
            AND m.metric_name = series.metric_name
        ORDER BY m.timestamp DESC, m.id DESC
        LIMIT 2
    ) AS two
    WINDOW newest_first AS (ORDER BY two.timestamp DESC, two.id DESC)
    ORDER BY two.timestamp DESC, two.id DESC
    LIMIT 1
) AS newest ON true
CROSS JOIN LATERAL (SELECT CURRENT_TIMESTAMP - newest.timestamp AS age) AS age
ORDER BY newest.timestamp DESC NULLS LAST, newest.id DESC, series.model_name, series.metric_type, series.metric_name
"""

V_DECISION_HISTORY_BEFORE = """
CREATE VIEW public.v_decision_history AS
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
FROM public.retraining_decisions AS d
LEFT JOIN public.model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id
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

V_MODEL_TIMELINE_BEFORE = """
CREATE VIEW public.v_model_timeline AS
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
FROM public.model_versions
WINDOW promotions AS (ORDER BY promoted_at, id)
ORDER BY created_at DESC NULLS LAST, id DESC
"""

V_RECENT_MONITORING_BEFORE = """
CREATE VIEW public.v_recent_monitoring AS
SELECT
    id,
    timestamp,
    metric_type,
    metric_name,
    metric_value,
    previous_value,
    metric_value - previous_value AS delta,
    CASE WHEN isfinite(timestamp) THEN CURRENT_TIMESTAMP - timestamp END AS age,
    metadata,
    created_at
FROM (
    SELECT
        m.id,
        m.timestamp,
        m.metric_type,
        m.metric_name,
        m.metric_value,
        m.metadata,
        m.created_at,
        lead(m.metric_value) OVER newest_first AS previous_value,
        row_number() OVER newest_first AS recency
    FROM public.monitoring_metrics AS m
    WINDOW newest_first AS (
        PARTITION BY m.metric_type, m.metric_name ORDER BY m.timestamp DESC NULLS LAST, m.id DESC
    )
) AS series
WHERE recency = 1
ORDER BY timestamp DESC NULLS LAST, id DESC
"""


VIEWS = ("v_decision_history", "v_model_timeline", "v_recent_monitoring")


def upgrade() -> None:
    replace_views(V_DECISION_HISTORY, V_MODEL_TIMELINE, V_RECENT_MONITORING)


def downgrade() -> None:
    replace_views(V_DECISION_HISTORY_BEFORE, V_MODEL_TIMELINE_BEFORE, V_RECENT_MONITORING_BEFORE)


def replace_views(*views: str) -> None:
    op.execute(SAFE_PATH)
    for name in VIEWS:
        op.execute(f"DROP VIEW public.{name}")
    for create in views:
        op.execute(create)
