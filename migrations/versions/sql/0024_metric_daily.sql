-- Each series by day in UTC: the days that [since, until) touches, each of them whole. A view would compute the days of
-- all rows before it compares them; this function compares the time itself, so that PostgreSQL leaves out months. It is
-- written so that PostgreSQL inlines it: LANGUAGE sql, STABLE, neither STRICT nor SET (manual, "Function Optimization
-- Information"). Then filters on model and series reach the primary key, too.
-- Names resolve by the path of who calls it: what has no schema is an exact match in pg_catalog, which wins over all that
-- others create in public.
-- Revisions: 0024

CREATE FUNCTION reporting.metric_daily(since timestamptz, until timestamptz DEFAULT CURRENT_TIMESTAMP)
RETURNS TABLE (
    day date,
    model_name varchar,
    metric_type varchar,
    metric_name varchar,
    minimum double precision,
    mean double precision,
    maximum double precision,
    count bigint,
    failed bigint
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    SELECT
        (m.timestamp AT TIME ZONE 'UTC')::date,
        m.model_name,
        m.metric_type,
        m.metric_name,
        min(m.metric_value),
        -- avg() squares what it averages, and fails if that is more than a double holds.
        CASE
            WHEN max(abs(m.metric_value)) < 1e140::double precision
                THEN avg(m.metric_value) FILTER (WHERE abs(m.metric_value) < 1e140::double precision)
        END,
        max(m.metric_value),
        pg_catalog.count(m.metric_value),
        count(*) - pg_catalog.count(m.metric_value)
    FROM reporting.metric_history AS m
    -- An empty range touches no day. Were that a condition of its own, PostgreSQL 13 would read the catalogue of series.
    WHERE m.timestamp >= CASE
            WHEN since < until THEN pg_catalog.date_trunc('day', since AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
            ELSE 'infinity'
        END
        AND m.timestamp < pg_catalog.date_trunc(
            'day', until AT TIME ZONE 'UTC' + interval '1 day' - interval '1 microsecond'
        ) AT TIME ZONE 'UTC'
    GROUP BY (m.timestamp AT TIME ZONE 'UTC')::date, m.model_name, m.metric_type, m.metric_name
$function$;

REVOKE EXECUTE ON FUNCTION reporting.metric_daily(timestamptz, timestamptz) FROM PUBLIC;
