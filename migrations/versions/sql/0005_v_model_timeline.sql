-- The model versions, newest first, and since when each was in production: the text of revision 0004, with schemas.
-- Revisions: 0005, 0022 (downgrade)

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
ORDER BY created_at DESC NULLS LAST, id DESC;
