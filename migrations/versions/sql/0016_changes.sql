-- What a copy of monitoring_metrics needs: the log of the changes that the copy does not have yet, and what was counted.
-- An UPDATE is logged as one row that goes and one that comes. The guard of rows reads table_copies, too.
-- Revisions: 0016, 0019 (downgrade)

CREATE TABLE mlops_internal.monitoring_metrics_changes (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT monitoring_metrics_changes_pkey PRIMARY KEY,
    -- squawk-ignore prefer-bigint-over-smallint
    change smallint NOT NULL,  -- 1: the row came, -1: it went
    -- squawk-ignore prefer-text-field
    model_name varchar(255) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_type varchar(100) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_name varchar(255) NOT NULL,
    timestamp timestamptz NOT NULL,
    metric_id bigint NOT NULL
);

CREATE TABLE mlops_internal.table_copies (
    source oid CONSTRAINT table_copies_pkey PRIMARY KEY,
    copy oid NOT NULL,
    changes oid NOT NULL,
    parts oid[] NOT NULL,  -- the partitions of the source when the log began
    triggers text[],       -- of the source and its partitions, which write the log: oid and xmin of each
    source_rows bigint,    -- of the source, without the changes that are not replayed; NULL until they are counted
    copy_rows bigint       -- of the copy, in the same way
);

INSERT INTO mlops_internal.table_copies (source, copy, changes, parts)
SELECT 'public.monitoring_metrics'::regclass, 'mlops_internal.monitoring_metrics_copy'::regclass,
       'mlops_internal.monitoring_metrics_changes'::regclass,
       ARRAY(SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.monitoring_metrics'::regclass ORDER BY 1);
