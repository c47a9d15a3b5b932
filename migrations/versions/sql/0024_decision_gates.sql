-- One row for each gate of each decision: the six known gates in the order of the evaluation, then others by name.
-- Revisions: 0024

CREATE VIEW reporting.decision_gates AS
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
FROM public.retraining_decisions AS d
LEFT JOIN public.model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id
CROSS JOIN LATERAL (
    SELECT
        coalesce(
            known.position,
            6 + row_number() OVER (PARTITION BY known.position IS NULL ORDER BY recorded.key)
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
            (1, 'sufficient_samples'),
            (2, 'minimum_coverage'),
            (3, 'promotion_cooldown'),
            (4, 'metric_improvement'),
            (5, 'calibration_maintained'),
            (6, 'no_segment_regression')
    ) AS known (position, gate)
    FULL JOIN (
        -- In a query of its own: beside other tables, Citus would run the function without the row that it reads.
        SELECT key, value
        FROM jsonb_each(CASE WHEN jsonb_typeof(d.gate_results) = 'object' THEN d.gate_results ELSE '{}' END)
    ) AS recorded ON recorded.key = known.gate
) AS g;
