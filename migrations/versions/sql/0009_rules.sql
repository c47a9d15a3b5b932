-- The rules of retraining_decisions for new rows; revision 0010 has the old rows verified.
-- The years are those of revision 0007.
-- Revisions: 0009

ALTER TABLE public.retraining_decisions
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
