-- Describe the columns whose meaning changed.
-- Revisions: 0025

COMMENT ON COLUMN public.v_model_timeline.promoted_at IS
    $comment$When its latest period in production began; NULL if there was none, or it is unknown.$comment$;
COMMENT ON COLUMN public.v_model_timeline.production_until IS
    $comment$When that period ended, because another version replaced it; NULL if none did.$comment$;
COMMENT ON COLUMN public.v_model_timeline.previous_version IS
    $comment$The version of its model that was in production before that period.$comment$;
COMMENT ON COLUMN public.v_recent_monitoring.health IS
    $comment$ok, drifted (so its details say), low, high (beyond a threshold), failed, stale, or missing.$comment$;
