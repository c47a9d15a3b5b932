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

The partitions are in mlops_internal: one for the old rows up to the end of this month (monitoring_metrics_legacy), one
for each of the three months ahead, and two without an end, monitoring_metrics_earlier and _later, for what is older or
newer, so that no insert ever fails for want of a partition. They take the place of a DEFAULT partition, beside which
PostgreSQL cannot know that partitions are in the order of time: the newest row of a series would then be looked for in
all of them (10 times slower with 24 months; docs/scaling.md).

A row that breaks a rule stops the revision, as in revision 0008. So does what would stay with the old table: a trigger,
a policy, a publication, an index or a constraint of somebody else's. So does a view of somebody else's on the table, which
would go on reading the old rows only, and a run by another role than the table's owner, to whom the new table would
belong. Grants are carried over.
"""

from alembic import op

revision = "0016"
down_revision = "0015"


def of_years(column: str) -> str:
    """Whether a moment is one that Python, too, can hold: a single other one, and nobody can read the table there."""
    return f"{column} AT TIME ZONE 'UTC' >= timestamp '0001-01-01' AND {column} AT TIME ZONE 'UTC' < timestamp '10000-01-01'"


BROKEN = {
    "metric_type is NULL": "metric_type IS NULL",
    "metric_name is NULL": "metric_name IS NULL",
    "metric_value is NaN or infinite": "metric_value IN ('NaN', 'Infinity', '-Infinity')",
    "timestamp is NULL or not of the years 1 to 9999": f"timestamp IS NULL OR NOT ({of_years('timestamp')})",
    "created_at is NULL or not of the years 1 to 9999": f"created_at IS NULL OR NOT ({of_years('created_at')})",
}

STOP_IF_NOT_ALONE = """
DO $find$
DECLARE
    owner text;
    readers text;
    drops text;
BEGIN
    SELECT pg_get_userbyid(relowner) INTO owner FROM pg_class WHERE oid = 'monitoring_metrics'::regclass;
    IF owner <> current_user THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('monitoring_metrics belongs to %s, and would belong to %s; nothing was changed',
                             owner, current_user),
            HINT = format('Run it as the owner: POSTGRES_USER=%s.', owner);
    END IF;
    SELECT string_agg(c.oid::regclass::text, ', '),
           string_agg(format('DROP %sVIEW %s', CASE c.relkind WHEN 'm' THEN 'MATERIALIZED ' END, c.oid::regclass), '; ')
      INTO readers, drops
      FROM pg_class AS c
     WHERE c.oid <> 'v_recent_monitoring'::regclass AND EXISTS (
               SELECT FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                WHERE r.ev_class = c.oid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = 'monitoring_metrics'::regclass
           );
    IF readers IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = format('%s would go on reading the old table of monitoring_metrics; nothing was changed', readers),
            HINT = format('%s; run it again, and create it anew afterwards.', drops);
    END IF;
    SELECT string_agg(left_behind.what, ', '), string_agg(left_behind.drops, '; ')
      INTO readers, drops
      FROM (
          SELECT format('trigger %I', tgname) AS what, format('DROP TRIGGER %I ON monitoring_metrics', tgname) AS drops
            FROM pg_trigger
           WHERE tgrelid = 'monitoring_metrics'::regclass AND NOT tgisinternal
             AND tgname NOT IN ('monitoring_metrics_register_series', 'monitoring_metrics_register_updated_series')
          UNION ALL
          SELECT 'row level security', 'ALTER TABLE monitoring_metrics DISABLE ROW LEVEL SECURITY'
            FROM pg_class WHERE oid = 'monitoring_metrics'::regclass AND relrowsecurity
          UNION ALL
          SELECT format('policy %I', polname), format('DROP POLICY %I ON monitoring_metrics', polname)
            FROM pg_policy WHERE polrelid = 'monitoring_metrics'::regclass
          UNION ALL
          SELECT format('publication %I', p.pubname), format('ALTER PUBLICATION %I DROP TABLE monitoring_metrics', p.pubname)
            FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid
           WHERE r.prrelid = 'monitoring_metrics'::regclass
          UNION ALL
          SELECT format('constraint %I', conname), format('ALTER TABLE monitoring_metrics DROP CONSTRAINT %I', conname)
            FROM pg_constraint
           WHERE conrelid = 'monitoring_metrics'::regclass AND contype IN ('c', 'f', 'u', 'x')
             AND conname NOT IN (
                       'monitoring_metrics_timestamp_check', 'monitoring_metrics_created_at_check',
                       'monitoring_metrics_metric_value_check'
                   )
          UNION ALL
          SELECT format('index %s', indexrelid::regclass), format('DROP INDEX %s', indexrelid::regclass)
            FROM pg_index AS i
           WHERE indrelid = 'monitoring_metrics'::regclass
             AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)
      ) AS left_behind;
    IF readers IS NOT NULL THEN
        RAISE dependent_objects_still_exist USING
            MESSAGE = format('the new table of monitoring_metrics would be without %s; nothing was changed', readers),
            HINT = format('%s; run it again, and create it anew afterwards.', drops);
    END IF;
END $find$
"""

V_RECENT_MONITORING = """
CREATE VIEW v_recent_monitoring AS
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
    FROM monitoring_metrics AS m
    WINDOW newest_first AS (
        PARTITION BY m.metric_type, m.metric_name ORDER BY m.timestamp DESC NULLS LAST, m.id DESC
    )
) AS series
WHERE recency = 1
ORDER BY timestamp DESC NULLS LAST, id DESC
"""

# A table cannot become a partitioned one: the old one steps aside, and the new one takes its name and its sequence.
STEP_ASIDE = """
ALTER SEQUENCE monitoring_metrics_id_seq OWNED BY NONE;
-- squawk-ignore ban-set-schema
ALTER TABLE monitoring_metrics SET SCHEMA mlops_internal
"""

CREATE_PARTITIONED = f"""
ALTER SEQUENCE monitoring_metrics_id_seq AS bigint;
CREATE TABLE monitoring_metrics (
    id bigint NOT NULL DEFAULT nextval('monitoring_metrics_id_seq'),
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
ALTER SEQUENCE monitoring_metrics_id_seq OWNED BY monitoring_metrics.id
"""

CREATE_PLAIN = """
ALTER SEQUENCE monitoring_metrics_id_seq AS integer;
CREATE TABLE monitoring_metrics (
    id integer NOT NULL DEFAULT nextval('monitoring_metrics_id_seq'),
    timestamp timestamptz DEFAULT CURRENT_TIMESTAMP,
    metric_type varchar(100),
    metric_name varchar(255),
    metric_value double precision,
    metadata jsonb,
    created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    model_name varchar(255) NOT NULL DEFAULT 'default'
);
ALTER SEQUENCE monitoring_metrics_id_seq OWNED BY monitoring_metrics.id
"""

CARRY_GRANTS_OVER = """
DO $grants$
DECLARE
    grants text;
BEGIN
    SELECT string_agg(format('GRANT %s%s ON monitoring_metrics TO %s%s', a.privilege_type, a.of_columns,
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
CREATE TRIGGER monitoring_metrics_register_series AFTER INSERT ON monitoring_metrics
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series();
CREATE TRIGGER monitoring_metrics_register_updated_series AFTER UPDATE ON monitoring_metrics
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
    EXECUTE format('ALTER TABLE monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_legacy'
                   ' FOR VALUES FROM (%L) TO (%L)', first, next_month);
    ALTER TABLE mlops_internal.monitoring_metrics_legacy DROP CONSTRAINT monitoring_metrics_legacy_bounds;

    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_earlier PARTITION OF monitoring_metrics'
                   ' FOR VALUES FROM (MINVALUE) TO (%L)', first);
    WHILE month <= this_month + interval '3 months' LOOP
        EXECUTE format('CREATE TABLE mlops_internal.%I PARTITION OF monitoring_metrics FOR VALUES FROM (%L) TO (%L)',
                       'monitoring_metrics_' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
        month := month + interval '1 month';
    END LOOP;
    EXECUTE format('CREATE TABLE mlops_internal.monitoring_metrics_later PARTITION OF monitoring_metrics'
                   ' FOR VALUES FROM (%L) TO (MAXVALUE)', month);

    IF has_later THEN
        INSERT INTO monitoring_metrics SELECT * FROM later_metrics;
        DROP TABLE later_metrics;
    END IF;
END $attach$
"""

STOP_IF_IDS_TOO_LARGE = """
DO $find$
DECLARE
    largest constant bigint := 2147483647;
    highest bigint;
BEGIN
    SELECT max(id) INTO highest FROM monitoring_metrics;
    IF highest > largest THEN
        RAISE numeric_value_out_of_range USING
            MESSAGE = format('monitoring_metrics has ids up to %s, and revision 0015 ends at %s; nothing was changed',
                             highest, largest),
            HINT = format('Stay at revision 0016 or later, or remove or renumber the rows: SELECT * FROM'
                          ' monitoring_metrics WHERE id > %s ORDER BY id', largest);
    END IF;
    -- The rows that had the larger ids may be gone.
    IF (SELECT last_value FROM monitoring_metrics_id_seq) > largest THEN
        EXECUTE format('ALTER SEQUENCE monitoring_metrics_id_seq RESTART WITH %s',
                       least(coalesce(highest, 0) + 1, largest));
    END IF;
END $find$
"""

COPY_BACK = """
INSERT INTO monitoring_metrics (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name)
SELECT id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name
  FROM mlops_internal.monitoring_metrics ORDER BY id;
DROP TABLE mlops_internal.monitoring_metrics;
ALTER TABLE monitoring_metrics ADD CONSTRAINT monitoring_metrics_pkey PRIMARY KEY (id)
"""


def upgrade() -> None:
    # Reading and rewriting millions of rows takes longer than a statement of a revision usually may.
    op.execute("SET LOCAL statement_timeout = '6h'")
    # Months begin in UTC, also in a session that a caller brought.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
    op.execute(stop_if_broken("monitoring_metrics", BROKEN))
    op.execute(STOP_IF_NOT_ALONE)
    # The view first, as its readers have it, or both would wait for each other.
    op.execute("DROP VIEW v_recent_monitoring")
    op.execute("LOCK TABLE monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON monitoring_metrics")
    op.execute(STEP_ASIDE)
    op.execute(CREATE_PARTITIONED)
    op.execute(CARRY_GRANTS_OVER)
    op.execute(ATTACH)
    op.execute(CREATE_TRIGGERS)
    op.execute(V_RECENT_MONITORING)


def downgrade() -> None:
    op.execute("SET LOCAL statement_timeout = '6h'")
    op.execute(STOP_IF_NOT_ALONE)
    op.execute("DROP VIEW v_recent_monitoring")
    op.execute("LOCK TABLE monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute(STOP_IF_IDS_TOO_LARGE)
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON monitoring_metrics")
    op.execute(STEP_ASIDE)
    op.execute(CREATE_PLAIN)
    op.execute(CARRY_GRANTS_OVER)
    op.execute(COPY_BACK)
    op.execute(CREATE_TRIGGERS)
    op.execute(V_RECENT_MONITORING)


def stop_if_broken(table: str, broken: dict[str, str]) -> str:
    """A block that raises if rows meet one of the conditions: what each means, by what it is found."""
    looks = "\n".join(
        f"""
        SELECT count(*), left(string_agg(id::text, ', ' ORDER BY id) FILTER (WHERE place <= 10), 200)
          INTO rows, ids
          FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM {table} WHERE {condition}) AS broken;
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
