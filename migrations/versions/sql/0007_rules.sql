-- The rules of model_versions for new rows; revision 0008 has the old rows verified.
-- The years are those that Python can hold, too. timezone() reads back the same from every version of PostgreSQL;
-- AT TIME ZONE does not.
-- Revisions: 0007

ALTER TABLE public.model_versions
    ALTER COLUMN status SET DEFAULT 'staging',
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
