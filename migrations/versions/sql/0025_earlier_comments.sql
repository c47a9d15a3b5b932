-- Describe the columns as before.
-- Revisions: 0025 (downgrade)

COMMENT ON COLUMN public.v_model_timeline.promoted_at IS $comment$When it was promoted last; NULL if never.$comment$;
COMMENT ON COLUMN public.v_model_timeline.production_until IS
    $comment$When, after that, another version of its model was promoted; NULL if none was yet.$comment$;
COMMENT ON COLUMN public.v_model_timeline.previous_version IS
    $comment$The version of its model that was promoted before that.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.health IS
    $comment$ok, low, high (beyond a threshold), failed (no value), stale, or missing (no row).$comment$;
