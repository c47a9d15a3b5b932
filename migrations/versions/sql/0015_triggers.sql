-- Register the series of new rows, and of rows that an UPDATE moves to another series.
-- Revisions: 0015, 0016 (downgrade), 0019

CREATE TRIGGER monitoring_metrics_register_series AFTER INSERT ON public.monitoring_metrics
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series();

CREATE TRIGGER monitoring_metrics_register_updated_series AFTER UPDATE ON public.monitoring_metrics
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series();
