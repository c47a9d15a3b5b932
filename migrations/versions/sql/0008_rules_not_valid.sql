-- The rules of model_versions as revision 0007 leaves them: for new rows, and NULL is forbidden by a constraint.
-- Revisions: 0008 (downgrade)

ALTER TABLE public.model_versions
    DROP CONSTRAINT model_versions_promoted_at_check,
    DROP CONSTRAINT model_versions_created_at_check,
    DROP CONSTRAINT model_versions_brier_score_check,
    DROP CONSTRAINT model_versions_f1_score_check,
    DROP CONSTRAINT model_versions_status_check,
    ALTER COLUMN created_at DROP NOT NULL,
    ALTER COLUMN status DROP NOT NULL,
    ADD CONSTRAINT model_versions_status_check
        CHECK (status::text IN ('staging', 'production', 'archived')) NOT VALID,
    ADD CONSTRAINT model_versions_f1_score_check CHECK (f1_score BETWEEN 0 AND 1) NOT VALID,
    ADD CONSTRAINT model_versions_brier_score_check CHECK (brier_score BETWEEN 0 AND 1) NOT VALID,
    ADD CONSTRAINT model_versions_created_at_check
        CHECK (timezone('UTC', created_at) >= timestamp '0001-01-01'
               AND timezone('UTC', created_at) < timestamp '10000-01-01') NOT VALID,
    ADD CONSTRAINT model_versions_promoted_at_check
        CHECK (timezone('UTC', promoted_at) >= timestamp '0001-01-01'
               AND timezone('UTC', promoted_at) < timestamp '10000-01-01') NOT VALID,
    ADD CONSTRAINT model_versions_not_null CHECK (status IS NOT NULL AND created_at IS NOT NULL) NOT VALID;
