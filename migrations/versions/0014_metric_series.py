"""Create the catalogue of metric series, and let it fill itself.

Why: v_recent_monitoring asks for the newest row of every series. Over millions of rows that is quick only if somebody
    knows which series there are; the catalogue does, one row for each (model_name, metric_type, metric_name). It also
    holds how often a value is expected and what is normal, so that a series that fell silent shows instead of vanishing.
Locks: SHARE ROW EXCLUSIVE and ACCESS EXCLUSIVE on monitoring_metrics for a moment, for the trigger and for the column,
    whose default is a constant: no row is read or written.
Loss on downgrade: expected intervals and thresholds, and the model names of monitoring_metrics.

The triggers look at the rows of a statement together, so that no row of the catalogue is hot. What is known already they
do not touch. Its statement is planned anew each time, because the plan for one row is a bad one for 100,000: EXECUTE
costs a tenth of a millisecond, a cached plan made COPY 10 to 20 % slower (docs/scaling.md).

Registering is a function of its own: on an engine that allows no trigger on the table, the writer calls it. Both run with
the rights of their owner, so a role that inserts metrics needs no other grant. Therefore only the owner may call them, or
make a trigger of them; a writer that has to call one is granted EXECUTE on mlops_internal.register_series. The trigger
refuses every table but monitoring_metrics, whose columns have types of PostgreSQL's own. What the functions name without
a schema is PostgreSQL's (manual, "Writing SECURITY DEFINER Functions Safely").
"""

from alembic import op

revision = "0014"
down_revision = "0013"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

CREATE_SERIES = """
CREATE TABLE mlops_internal.metric_series (
    -- squawk-ignore prefer-text-field
    model_name varchar(255) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_type varchar(100) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_name varchar(255) NOT NULL,
    expected_interval interval,
    lower_threshold double precision,
    upper_threshold double precision,
    registered_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT metric_series_pkey PRIMARY KEY (model_name, metric_type, metric_name),
    CONSTRAINT metric_series_expected_interval_check
        CHECK (expected_interval > interval '0' AND expected_interval <= interval '1000 years'),
    CONSTRAINT metric_series_lower_threshold_check
        CHECK (lower_threshold > '-Infinity' AND lower_threshold < 'Infinity'),
    CONSTRAINT metric_series_upper_threshold_check
        CHECK (upper_threshold > '-Infinity' AND upper_threshold < 'Infinity'),
    CONSTRAINT metric_series_thresholds_check CHECK (lower_threshold <= upper_threshold)
)
"""

CREATE_REGISTER = """
CREATE FUNCTION mlops_internal.register_series(model_name text, metric_type text, metric_name text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
    INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name)
    VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
$function$
"""

CREATE_TRIGGER_FUNCTION = """
CREATE FUNCTION mlops_internal.register_new_series() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF TG_RELID IS DISTINCT FROM to_regclass('public.monitoring_metrics') THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('%I.%I is not monitoring_metrics, and its rows are of no series', TG_TABLE_SCHEMA, TG_TABLE_NAME),
            HINT = 'Drop the trigger.';
    END IF;
    EXECUTE $query$
        SELECT mlops_internal.register_series(model_name, metric_type, metric_name)
          FROM (
              SELECT DISTINCT n.model_name, n.metric_type, n.metric_name
                FROM new_rows AS n
               WHERE n.metric_type IS NOT NULL AND n.metric_name IS NOT NULL
                 AND NOT EXISTS (
                     SELECT FROM mlops_internal.metric_series AS s
                      WHERE s.model_name = n.model_name
                        AND s.metric_type = n.metric_type AND s.metric_name = n.metric_name
                 )
               ORDER BY 1, 2, 3  -- the same order for all, so that two writers cannot wait for each other in a circle
          ) AS new_series
    $query$;
    RETURN NULL;
END
$function$
"""

CREATE_TRIGGER = """
CREATE TRIGGER monitoring_metrics_register_series AFTER INSERT ON public.monitoring_metrics
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series()
"""

# Rows can come to another series, too: UPDATE monitoring_metrics SET model_name = ...
CREATE_UPDATE_TRIGGER = """
CREATE TRIGGER monitoring_metrics_register_updated_series AFTER UPDATE ON public.monitoring_metrics
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series()
"""


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(CREATE_SERIES)
    op.execute(CREATE_REGISTER)
    op.execute("REVOKE EXECUTE ON FUNCTION mlops_internal.register_series(text, text, text) FROM PUBLIC")
    op.execute(CREATE_TRIGGER_FUNCTION)
    op.execute("REVOKE EXECUTE ON FUNCTION mlops_internal.register_new_series() FROM PUBLIC")
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.monitoring_metrics ADD COLUMN model_name varchar(255) NOT NULL DEFAULT 'default'
        """
    )
    op.execute(CREATE_TRIGGER)
    op.execute(CREATE_UPDATE_TRIGGER)


def downgrade() -> None:
    op.execute(SAFE_PATH)
    # First of all: before it goes, its values are looked at, and dropping a trigger would keep readers out meanwhile.
    op.drop_column("monitoring_metrics", "model_name", schema="public")
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON public.monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON public.monitoring_metrics")
    op.execute("DROP FUNCTION mlops_internal.register_new_series()")
    op.execute("DROP FUNCTION mlops_internal.register_series(text, text, text)")
    op.execute("DROP TABLE mlops_internal.metric_series")
