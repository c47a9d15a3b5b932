"""Partition monitoring_metrics by month, with 64-bit ids, and hold it to clean values.

Why: monitoring adds rows for ever. By months, the oldest ones go by dropping a table in milliseconds instead of by
    deleting rows for minutes; and ids of 32 bits run out within two years at 800 models. A value that is NaN or infinite
    spoils every average; a row without series or moment answers no question. NULL as a value means that it could not be
    computed.
Locks: ACCESS SHARE on monitoring_metrics while its rows are read for the findings; then ACCESS EXCLUSIVE on it and on
    v_recent_monitoring while the table is rewritten with 64-bit ids, about 1 second per million rows, by how busy two
    cores were (docs/scaling.md): readers and writers of metrics wait for that long. It is the one stall of the upgrade,
    and cannot be avoided where ids become wider. After it the table becomes a partition as it is, without another copy;
    revision 0017 builds its key while others read and write; until then nothing can be published of an UPDATE or DELETE,
    so with a publication FOR ALL TABLES those fail. Downgrade copies all rows under ACCESS EXCLUSIVE, 2 to 5
    seconds per million.
Loss on downgrade: nothing of the rows. The months become one table again.
Accepted: running-code, because a row without a series answers no question, and no code of this package wrote one.

The partitions are in mlops_internal: one for the old rows up to the end of this month (monitoring_metrics_legacy), one
for each of the three months ahead, and two without an end, monitoring_metrics_earlier and _later, for what is older or
newer, so that no insert ever fails for want of a partition. They take the place of a DEFAULT partition, beside which
PostgreSQL cannot know that partitions are in the order of time: the newest row of a series would then be looked for in
all of them (10 times slower with 24 months; docs/scaling.md).

A row that breaks a rule stops the revision, as in revision 0008. So does whatever of somebody else's would stay with the
old table, such as a trigger, a policy, an index or a column; whatever would go on reading the old rows only, such as a
view or a function with a body in SQL; and a run by another role than the table's owner, to whom the new table would
belong. All of it is named before the table is locked. Grants are carried over.
"""

from alembic import op

revision = "0016"
down_revision = "0015"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# A run takes it from `-x statement-timeout`, if that is given.
LONG_TIMEOUT = """
SELECT set_config('statement_timeout',
                  coalesce(nullif(current_setting('mlops_db.long_statement_timeout', true), ''), '6h'), true)
"""

# A partitioned table, or an index on one, cannot be put into the database's own tablespace by its name.
OWN_TABLESPACE_UNNAMED = """
SELECT set_config('default_tablespace', '', true)
  FROM pg_database AS d JOIN pg_tablespace AS t ON t.oid = d.dattablespace
 WHERE d.datname = current_database() AND t.spcname = current_setting('default_tablespace')
"""


def of_years(column: str) -> str:
    """Whether a moment is one that Python, too, can hold: a single other one, and nobody can read the table there."""
    utc = f"timezone('UTC', {column})"  # a call, as AT TIME ZONE reads back differently from version to version
    return f"{utc} >= timestamp '0001-01-01' AND {utc} < timestamp '10000-01-01'"


# What breaks each rule; `mlops-db adopt` looks for it, too.
TABLE = "monitoring_metrics"
BROKEN = {
    "metric_type is NULL": "metric_type IS NULL",
    "metric_name is NULL": "metric_name IS NULL",
    "metric_value is NaN or infinite": "metric_value IN ('NaN', 'Infinity', '-Infinity')",
    "timestamp is NULL or not of the years 1 to 9999": f"timestamp IS NULL OR NOT ({of_years('timestamp')})",
    "created_at is NULL or not of the years 1 to 9999": f"created_at IS NULL OR NOT ({of_years('created_at')})",
}

# Whatever of somebody else's depends on the table, its columns or its row type, as pg_depend has it: what reads it would
# go on reading the old table, and what is a part of it would stay with that.
STOP_IF_NOT_ALONE = r"""
DO $find$
DECLARE
    metrics constant regclass := 'public.monitoring_metrics';
    owner text;
    readers text;
    parts text;
    remedies text;
BEGIN
    SELECT pg_get_userbyid(relowner) INTO owner FROM pg_class WHERE oid = metrics;
    IF owner <> current_user THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('monitoring_metrics belongs to %s, and would belong to %s; nothing was changed',
                             owner, current_user),
            HINT = format('Run it as the owner: POSTGRES_USER=%s.', owner);
    END IF;
    WITH dependents AS (
        SELECT d.classid, d.objid, max(d.objsubid) AS objsubid, bool_or(d.deptype = 'a') AS is_part
          FROM pg_depend AS d
         WHERE d.deptype <> 'i'
           AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = metrics
                OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (
                       SELECT t.oid FROM pg_type AS t
                        WHERE t.typrelid = metrics OR t.typelem = (SELECT reltype FROM pg_class WHERE oid = metrics)))
         GROUP BY 1, 2
    ),
    named AS (
        -- A view depends on what its rule reads.
        SELECT DISTINCT CASE WHEN v.oid IS NULL THEN o.type ELSE w.type END AS type,
               CASE WHEN v.oid IS NULL THEN o.identity ELSE w.identity END AS identity,
               a.object_names AS parts, d.is_part, d.classid, d.objid, d.objsubid
          FROM dependents AS d
          LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
          LEFT JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
         CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS o
         CROSS JOIN LATERAL pg_identify_object_as_address(d.classid, d.objid, d.objsubid) AS a
          LEFT JOIN LATERAL pg_identify_object('pg_class'::regclass, v.oid, 0) AS w ON v.oid IS NOT NULL
    ),
    strangers AS (
        SELECT regexp_replace(regexp_replace(n.identity, ' on public\.monitoring_metrics$', ''), '^public\.', '') AS shown,
               n.*, p.pubname, c.relkind
          FROM named AS n
          LEFT JOIN pg_publication_rel AS pr ON n.classid = 'pg_publication_rel'::regclass AND pr.oid = n.objid
          LEFT JOIN pg_publication AS p ON p.oid = pr.prpubid
          LEFT JOIN pg_class AS c ON n.classid = 'pg_class'::regclass AND c.oid = n.objid
          LEFT JOIN pg_constraint AS k ON n.classid = 'pg_constraint'::regclass AND k.oid = n.objid
         WHERE (n.type, n.identity) NOT IN (
                   ('view', 'public.v_recent_monitoring'),
                   ('sequence', 'public.monitoring_metrics_id_seq'),
                   ('trigger', 'monitoring_metrics_register_series on public.monitoring_metrics'),
                   ('trigger', 'monitoring_metrics_register_updated_series on public.monitoring_metrics'),
                   ('default value', 'for public.monitoring_metrics.id'),
                   ('default value', 'for public.monitoring_metrics."timestamp"'),
                   ('default value', 'for public.monitoring_metrics.created_at'),
                   ('default value', 'for public.monitoring_metrics.model_name'))
           AND NOT coalesce(c.relispartition OR k.contype IN ('n', 'p')
                            OR k.conrelid = metrics AND k.conname IN (
                                   'monitoring_metrics_timestamp_check', 'monitoring_metrics_created_at_check',
                                   'monitoring_metrics_metric_value_check'), false)
    ),
    told (what, is_part, remedy) AS (
        SELECT CASE WHEN s.pubname IS NOT NULL THEN format('publication %I', s.pubname)
                    WHEN s.type LIKE '% constraint' THEN 'constraint ' || s.shown
                    WHEN s.relkind IN ('r', 'p', 'f') AND s.objsubid = 0 THEN format('child table %s', s.shown)
                    WHEN s.type IN ('view', 'materialized view') THEN s.shown
                    ELSE s.type || ' ' || s.shown END,
               s.is_part OR coalesce(s.relkind IN ('r', 'p', 'f') AND s.objsubid = 0, false),
               CASE WHEN s.pubname IS NOT NULL THEN format('ALTER PUBLICATION %I DROP TABLE monitoring_metrics', s.pubname)
                    WHEN s.type LIKE '% constraint'
                        THEN format('ALTER TABLE %I.%I DROP CONSTRAINT %I', s.parts[1], s.parts[2], s.parts[3])
                    WHEN s.type = 'default value'
                        THEN format('ALTER TABLE %I.%I ALTER COLUMN %I DROP DEFAULT', s.parts[1], s.parts[2], s.parts[3])
                    WHEN s.type LIKE '%column'
                        THEN format('ALTER TABLE %I.%I ALTER COLUMN %I TYPE text', s.parts[1], s.parts[2], s.parts[3])
                    WHEN s.relkind IN ('r', 'p', 'f') THEN format('ALTER TABLE %s NO INHERIT monitoring_metrics', s.shown)
                    WHEN s.type IN ('trigger', 'policy', 'rule') THEN format('DROP %s %s', upper(s.type), s.identity)
                    WHEN s.type = 'statistics object' THEN format('DROP STATISTICS %s', s.shown)
                    ELSE format('DROP %s %s', upper(s.type), s.shown) END
          FROM strangers AS s
         UNION ALL
        SELECT 'row level security', true, 'ALTER TABLE monitoring_metrics DISABLE ROW LEVEL SECURITY'
          FROM pg_class WHERE oid = metrics AND relrowsecurity
         UNION ALL
        SELECT 'parent table ' || regexp_replace(inhparent::regclass::text, '^public\.', ''), true,
               format('ALTER TABLE monitoring_metrics NO INHERIT %s', inhparent::regclass)
          FROM pg_inherits WHERE inhrelid = metrics
         UNION ALL
        SELECT format('column %I', attname), true,
               format('CREATE TABLE %I AS SELECT id, %I FROM monitoring_metrics;'
                      ' ALTER TABLE monitoring_metrics DROP COLUMN %I', 'monitoring_metrics_' || attname, attname, attname)
          FROM pg_attribute
         WHERE attrelid = metrics AND attnum > 0 AND NOT attisdropped
           AND attname NOT IN ('id', 'timestamp', 'metric_type', 'metric_name', 'metric_value', 'metadata', 'created_at',
                               'model_name')
    )
    SELECT string_agg(what, ', ' ORDER BY what) FILTER (WHERE NOT is_part),
           string_agg(what, ', ' ORDER BY what) FILTER (WHERE is_part),
           string_agg(remedy, '; ' ORDER BY what)
      INTO readers, parts, remedies FROM told;
    IF remedies IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = concat_ws('; ', readers || ' would go on reading the old table of monitoring_metrics',
                                'the new table of monitoring_metrics would be without ' || parts, 'nothing was changed'),
            HINT = format('%s; run it again, and create it anew afterwards.', remedies);
    END IF;
END $find$
"""

V_RECENT_MONITORING = """
CREATE VIEW public.v_recent_monitoring AS
SELECT
    id,
    timestamp,
    metric_type,
    metric_name,
    metric_value,
    previous_value,
    metric_value - previous_value AS delta,
    CASE WHEN isfinite(timestamp) THEN CURRENT_TIMESTAMP - timestamp END AS age,
    metadata,
    created_at
FROM (
    SELECT
        m.id,
        m.timestamp,
        m.metric_type,
        m.metric_name,
        m.metric_value,
        m.metadata,
        m.created_at,
        lead(m.metric_value) OVER newest_first AS previous_value,
        row_number() OVER newest_first AS recency
    FROM public.monitoring_metrics AS m
    WINDOW newest_first AS (
        PARTITION BY m.metric_type, m.metric_name ORDER BY m.timestamp DESC NULLS LAST, m.id DESC
    )
) AS series
WHERE recency = 1
ORDER BY timestamp DESC NULLS LAST, id DESC
"""

# A table cannot become a partitioned one: the old one steps aside, and the new one takes its name and its sequence.
STEP_ASIDE = """
ALTER SEQUENCE public.monitoring_metrics_id_seq OWNED BY NONE;
-- squawk-ignore ban-set-schema
ALTER TABLE public.monitoring_metrics SET SCHEMA mlops_internal
"""

CREATE_PARTITIONED = f"""
ALTER SEQUENCE public.monitoring_metrics_id_seq AS bigint;
CREATE TABLE public.monitoring_metrics (
    id bigint NOT NULL DEFAULT nextval('public.monitoring_metrics_id_seq'),
    timestamp timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    metric_type varchar(100) NOT NULL,
    -- squawk-ignore prefer-text-field
    metric_name varchar(255) NOT NULL,
    metric_value double precision,
    metadata jsonb,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    -- squawk-ignore prefer-text-field
    model_name varchar(255) NOT NULL DEFAULT 'default',
    CONSTRAINT monitoring_metrics_timestamp_check CHECK ({of_years("timestamp")}),
    CONSTRAINT monitoring_metrics_created_at_check CHECK ({of_years("created_at")}),
    CONSTRAINT monitoring_metrics_metric_value_check CHECK (metric_value > '-Infinity' AND metric_value < 'Infinity')
) PARTITION BY RANGE (timestamp);
ALTER SEQUENCE public.monitoring_metrics_id_seq OWNED BY public.monitoring_metrics.id
"""

CREATE_PLAIN = """
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
ALTER SEQUENCE public.monitoring_metrics_id_seq OWNED BY public.monitoring_metrics.id
"""

CARRY_GRANTS_OVER = """
DO $grants$
DECLARE
    grants text;
BEGIN
    SELECT string_agg(format('GRANT %s%s ON public.monitoring_metrics TO %s%s', a.privilege_type, a.of_columns,
                             CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                             CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; ')
      INTO grants
      FROM (
          SELECT acl.*, '' AS of_columns, c.relowner
            FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS acl
           WHERE c.oid = 'mlops_internal.monitoring_metrics'::regclass
           UNION ALL
          SELECT acl.*, format(' (%I)', attribute.attname), c.relowner
            FROM pg_class AS c JOIN pg_attribute AS attribute ON attribute.attrelid = c.oid
           CROSS JOIN aclexplode(attribute.attacl) AS acl
           WHERE c.oid = 'mlops_internal.monitoring_metrics'::regclass AND attribute.attnum > 0
      ) AS a
     WHERE a.grantee <> a.relowner;
    IF grants IS NOT NULL THEN
        EXECUTE grants;
    END IF;
END $grants$
"""

CREATE_TRIGGERS = """
CREATE TRIGGER monitoring_metrics_register_series AFTER INSERT ON public.monitoring_metrics
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series();
CREATE TRIGGER monitoring_metrics_register_updated_series AFTER UPDATE ON public.monitoring_metrics
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series()
"""

# The bounds are checked in the same pass as the rewrite, so that attaching need not read the table once more (manual,
# "ALTER TABLE", ATTACH PARTITION).
ATTACH = f"""
DO $attach$
DECLARE
    this_month constant timestamptz := date_trunc('month', CURRENT_TIMESTAMP, 'UTC');
    next_month constant timestamptz := this_month + interval '1 month';
    first timestamptz;
    has_later boolean;
    month timestamptz := next_month;
BEGIN
    SELECT least(date_trunc('month', min(timestamp), 'UTC'), this_month), coalesce(max(timestamp) >= next_month, false)
      INTO first, has_later
      FROM mlops_internal.monitoring_metrics;
    IF has_later THEN
        CREATE TEMPORARY TABLE later_metrics ON COMMIT DROP AS
            SELECT * FROM mlops_internal.monitoring_metrics WHERE timestamp >= next_month;
        DELETE FROM mlops_internal.monitoring_metrics WHERE timestamp >= next_month;
    END IF;
    EXECUTE format(
        'ALTER TABLE mlops_internal.monitoring_metrics'
        ' DROP CONSTRAINT monitoring_metrics_pkey,'
        ' ALTER COLUMN id TYPE bigint,'
        ' ALTER COLUMN timestamp SET NOT NULL,'
        ' ALTER COLUMN metric_type SET NOT NULL,'
        ' ALTER COLUMN metric_name SET NOT NULL,'
        ' ALTER COLUMN created_at SET NOT NULL,'
        ' ADD CONSTRAINT monitoring_metrics_timestamp_check CHECK (' || $rule${of_years("timestamp")}$rule$ || '),'
        ' ADD CONSTRAINT monitoring_metrics_created_at_check CHECK (' || $rule${of_years("created_at")}$rule$ || '),'
        ' ADD CONSTRAINT monitoring_metrics_metric_value_check'
        '   CHECK (metric_value > ''-Infinity'' AND metric_value < ''Infinity''),'
        ' ADD CONSTRAINT monitoring_metrics_legacy_bounds CHECK (timestamp >= %L AND timestamp < %L)',
        first, next_month
    );
    ALTER TABLE mlops_internal.monitoring_metrics RENAME TO monitoring_metrics_legacy;
    EXECUTE format('ALTER TABLE public.monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_legacy'
                   ' FOR VALUES FROM (%L) TO (%L)', first, next_month);
    ALTER TABLE mlops_internal.monitoring_metrics_legacy DROP CONSTRAINT monitoring_metrics_legacy_bounds;

    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_earlier PARTITION OF public.monitoring_metrics'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', first);
    WHILE month <= this_month + interval '3 months' LOOP
        EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF public.monitoring_metrics FOR VALUES FROM (%L) TO (%L)',
                       'monitoring_metrics_' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
        month := month + interval '1 month';
    END LOOP;
    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_later PARTITION OF public.monitoring_metrics'
                   ' FOR VALUES FROM (%L) TO (MAXVALUE)', month);

    IF has_later THEN
        INSERT INTO public.monitoring_metrics SELECT * FROM pg_temp.later_metrics;
        DROP TABLE pg_temp.later_metrics;
    END IF;
END $attach$
"""

STOP_IF_IDS_TOO_LARGE = """
DO $find$
DECLARE
    largest constant bigint := 2147483647;
    highest bigint;
BEGIN
    SELECT max(id) INTO highest FROM public.monitoring_metrics;
    IF highest > largest THEN
        RAISE numeric_value_out_of_range USING
            MESSAGE = format('monitoring_metrics has ids up to %s, and revision 0015 ends at %s; nothing was changed',
                             highest, largest),
            HINT = format('Stay at revision 0016 or later, or remove or renumber the rows: SELECT * FROM'
                          ' monitoring_metrics WHERE id > %s ORDER BY id', largest);
    END IF;
    -- The rows that had the larger ids may be gone.
    IF (SELECT last_value FROM public.monitoring_metrics_id_seq) > largest THEN
        EXECUTE format('ALTER SEQUENCE public.monitoring_metrics_id_seq RESTART WITH %s',
                       least(coalesce(highest, 0) + 1, largest));
    END IF;
END $find$
"""

COPY_BACK = """
INSERT INTO public.monitoring_metrics (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name)
SELECT id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name
  FROM mlops_internal.monitoring_metrics ORDER BY id
"""
ADD_KEY = "ALTER TABLE public.monitoring_metrics ADD CONSTRAINT monitoring_metrics_pkey PRIMARY KEY (id)"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    # Reading and rewriting millions of rows takes longer than a statement of a revision usually may.
    op.execute(LONG_TIMEOUT)
    # Months begin in UTC, also in a session that a caller brought.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
    op.execute(stop_if_broken(TABLE, BROKEN))
    op.execute(STOP_IF_NOT_ALONE)
    # The view first, as its readers have it, or both would wait for each other.
    op.execute("DROP VIEW public.v_recent_monitoring")
    op.execute("LOCK TABLE public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute(STOP_IF_NOT_ALONE)  # once more, for what came in between
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON public.monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON public.monitoring_metrics")
    op.execute(STEP_ASIDE)
    op.execute(OWN_TABLESPACE_UNNAMED)
    op.execute(CREATE_PARTITIONED)
    op.execute(CARRY_GRANTS_OVER)
    op.execute(ATTACH)
    op.execute(CREATE_TRIGGERS)
    op.execute(V_RECENT_MONITORING)


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(LONG_TIMEOUT)
    op.execute(STOP_IF_NOT_ALONE)
    op.execute("DROP VIEW public.v_recent_monitoring")
    op.execute("LOCK TABLE public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute(STOP_IF_IDS_TOO_LARGE)
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON public.monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON public.monitoring_metrics")
    op.execute(STEP_ASIDE)
    op.execute(CREATE_PLAIN)
    op.execute(CARRY_GRANTS_OVER)
    op.execute(COPY_BACK)
    # A statement of its own: production compares what goes with what was copied, and would copy once more for that.
    op.execute("DROP TABLE mlops_internal.monitoring_metrics")
    op.execute(ADD_KEY)
    op.execute(CREATE_TRIGGERS)
    op.execute(V_RECENT_MONITORING)


def stop_if_broken(table: str, broken: dict[str, str]) -> str:
    """A block that raises if rows meet one of the conditions: what each means, by what it is found."""
    looks = "\n".join(
        f"""
        SELECT count(*), left(string_agg(id::text, ', ' ORDER BY id) FILTER (WHERE place <= 10), 200)
          INTO rows, ids
          FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM public.{table} WHERE {condition}) AS broken;
        IF rows > 0 THEN
            found := found || format('%s (%s %s, id %s%s)', $what${what}$what$, rows,
                                     CASE rows WHEN 1 THEN 'row' ELSE 'rows' END, ids,
                                     CASE WHEN rows > 10 THEN ', ...' ELSE '' END);
        END IF;"""
        for what, condition in broken.items()
    )
    every = " OR ".join(f"({condition})" for condition in broken.values())
    return f"""
    DO $find$
    DECLARE
        rows bigint;
        ids text;
        found text[] := '{{}}';
    BEGIN
        {looks}
        IF found <> '{{}}' THEN
            RAISE check_violation USING
                MESSAGE = format('rows of {table} break rules of revision {revision}: %s; nothing was changed',
                                 array_to_string(found, '; ')),
                HINT = 'Mend these rows, then run it again: '
                       || $all$SELECT * FROM {table} WHERE {every} ORDER BY id$all$;
        END IF;
    END $find$
    """
