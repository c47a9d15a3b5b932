-- The timeout of a statement that reads or rewrites a large table: `-x statement-timeout`, otherwise 6 hours.
-- Until the transaction ends.
-- Revisions: 0013, 0016, 0017 (downgrade), 0018, 0019, 0021

SELECT set_config('statement_timeout',
                  coalesce(nullif(current_setting('mlops_db.long_statement_timeout', true), ''), '6h'), true);
