-- The decisions, newest first, with model, candidate and counted gates.
-- Revisions: 0022

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
    FULL JOIN (
        -- In a query of its own: beside other tables, Citus would run the function without the row that it reads.
        SELECT key, value
        FROM jsonb_each(CASE WHEN jsonb_typeof(d.gate_results) = 'object' THEN d.gate_results ELSE '{}' END)
    ) AS result ON result.key = known.gate
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN result.value IN ('true', 'false') THEN result.value
                WHEN result.value -> 'passed' IN ('true', 'false') THEN result.value -> 'passed'
            END = 'true' AS passed
    ) AS outcome
) AS g
ORDER BY d.decision_timestamp DESC, d.id DESC;
