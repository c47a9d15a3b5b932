-- The rules of retraining_decisions as revision 0009 leaves them: for new rows, and NULL is forbidden by a constraint.
-- Revisions: 0010 (downgrade)

ALTER TABLE public.retraining_decisions
    DROP CONSTRAINT retraining_decisions_created_at_check,
    DROP CONSTRAINT retraining_decisions_decision_timestamp_check,
    DROP CONSTRAINT retraining_decisions_gate_results_check,
    DROP CONSTRAINT retraining_decisions_action_check,
    ALTER COLUMN created_at DROP NOT NULL,
    ALTER COLUMN decision_timestamp DROP NOT NULL,
    ALTER COLUMN action DROP NOT NULL,
    ADD CONSTRAINT retraining_decisions_action_check
        CHECK (action::text IN ('promote', 'reject', 'pending')) NOT VALID,
    ADD CONSTRAINT retraining_decisions_gate_results_check
        CHECK (jsonb_typeof(gate_results) = 'object') NOT VALID,
    ADD CONSTRAINT retraining_decisions_decision_timestamp_check
        CHECK (timezone('UTC', decision_timestamp) >= timestamp '0001-01-01'
               AND timezone('UTC', decision_timestamp) < timestamp '10000-01-01') NOT VALID,
    ADD CONSTRAINT retraining_decisions_created_at_check
        CHECK (timezone('UTC', created_at) >= timestamp '0001-01-01'
               AND timezone('UTC', created_at) < timestamp '10000-01-01') NOT VALID,
    ADD CONSTRAINT retraining_decisions_not_null
        CHECK (action IS NOT NULL AND decision_timestamp IS NOT NULL AND created_at IS NOT NULL) NOT VALID;
