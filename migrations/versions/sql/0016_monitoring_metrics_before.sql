-- The table of revision 0015: not partitioned, with 32-bit ids.
-- Revisions: 0016 (downgrade)

ALTER SEQUENCE public.monitoring_metrics_id_seq AS integer;

CREATE TABLE public.monitoring_metrics (
    id integer NOT NULL DEFAULT nextval('public.monitoring_metrics_id_seq'),
    timestamp timestamptz DEFAULT CURRENT_TIMESTAMP,
    metric_type varchar(100),
    metric_name varchar(255),
    metric_value double precision,
    metadata jsonb,
    created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    model_name varchar(255) NOT NULL DEFAULT 'default'
);

ALTER SEQUENCE public.monitoring_metrics_id_seq OWNED BY public.monitoring_metrics.id;
