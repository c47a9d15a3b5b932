-- One row for each time that a version was in production, rollbacks included.
-- After a rollback a version has several promotions. The decisions have the earlier ones.
-- Revisions: 0024

CREATE VIEW reporting.production_periods AS
WITH promotions AS (
    SELECT model_name, id AS version_id, promoted_at FROM public.model_versions WHERE promoted_at IS NOT NULL
    UNION
    SELECT d.model_name, v.id, d.decision_timestamp
    FROM public.retraining_decisions AS d
    JOIN public.model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id AND v.model_name = d.model_name
    WHERE d.action = 'promote' AND (d.decision_timestamp < v.promoted_at OR v.status = 'production')
    UNION
    -- The last one, whatever the moments say: one that was put there by hand may have none, or an old one.
    SELECT model_name, id, NULL::timestamptz AS promoted_at FROM public.model_versions WHERE status = 'production'
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
)
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
JOIN public.model_versions AS v ON v.model_name = p.model_name AND v.id = p.version_id
LEFT JOIN public.model_versions AS before ON before.model_name = p.model_name AND before.id = p.before_id;
