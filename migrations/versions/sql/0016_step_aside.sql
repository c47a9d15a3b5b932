-- A table cannot become a partitioned one: the old one steps aside, and the new one takes its name and its sequence.
-- Revisions: 0016

ALTER SEQUENCE public.monitoring_metrics_id_seq OWNED BY NONE;

-- squawk-ignore ban-set-schema
ALTER TABLE public.monitoring_metrics SET SCHEMA mlops_internal;
