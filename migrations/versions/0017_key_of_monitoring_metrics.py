"""Give the partitioned monitoring_metrics its key.

Why: one index serves as key, for the history of a series, and for its newest row: (model_name, metric_type, metric_name,
    timestamp, id). It holds metric_value, too, so that a history is read out of it alone. Of the old rows it is built
    without keeping anybody from them, which is why revision 0016 leaves it to this one: to build it there would take longer
    than the rewrite.
Locks: SHARE UPDATE EXCLUSIVE on monitoring_metrics_legacy while its index is built, which keeps nobody from reading or
    writing; then ACCESS EXCLUSIVE on monitoring_metrics and its partitions, for a moment if the other partitions have few
    rows, as they do right after revision 0016. After a downgrade from a later revision the months have theirs, and their
    keys are built under that lock. Downgrade takes it for a moment.
Loss on downgrade: nothing.

Interrupted while the index is built, run it again: it drops the invalid index and builds it anew (for a script of --sql,
drop it first). If the old rows are of no other month than this one, as in a new database where there are none, their
partition gets that month's name.
"""

from alembic import op

revision = "0017"
down_revision = "0016"

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

COLUMNS = ["model_name", "metric_type", "metric_name", "timestamp", "id"]
INCLUDED = ["metric_value"]

# The server cleans up after the rewrite of 0016 about now. Who waits for that with ACCESS EXCLUSIVE lets all others wait
# behind; with this lock nobody does, it makes the cleaning give way after a second, and keeps it away from then on.
WAIT_FOR_AUTOVACUUM = """
DO $wait$
DECLARE
    patience constant text := current_setting('lock_timeout');
BEGIN
    PERFORM set_config('lock_timeout', '10min', true);
    LOCK TABLE ONLY mlops_internal.monitoring_metrics_legacy IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', patience, true);
END $wait$
"""

USE_INDEX = """
ALTER TABLE mlops_internal.monitoring_metrics_legacy
    ADD CONSTRAINT monitoring_metrics_legacy_pkey PRIMARY KEY USING INDEX monitoring_metrics_legacy_pkey
"""

# The key that one partition has by then becomes its part of this one; those of the others are built
# (manual, "CREATE INDEX": an equivalent index of a partition is attached).
ADD_KEY = f"""
-- squawk-ignore constraint-missing-not-valid, adding-serial-primary-key-field
ALTER TABLE public.monitoring_metrics ADD CONSTRAINT monitoring_metrics_pkey PRIMARY KEY ({", ".join(COLUMNS)})
    INCLUDE ({", ".join(INCLUDED)})
"""

NAME_BY_MONTH = """
DO $name$
DECLARE
    bounds constant text[] := (
        SELECT regexp_match(pg_get_expr(relpartbound, oid), 'FROM \\(''(.*)''\\) TO \\(''(.*)''\\)')
          FROM pg_class WHERE oid = 'mlops_internal.monitoring_metrics_legacy'::regclass
    );
    month constant timestamptz := bounds[1]::timestamptz;
    name constant text := 'monitoring_metrics_' || to_char(month, 'YYYY_MM');
BEGIN
    IF bounds[2]::timestamptz = month + interval '1 month' AND to_regclass('mlops_internal.' || name) IS NULL THEN
        EXECUTE format('ALTER TABLE mlops_internal.monitoring_metrics_legacy'
                       ' RENAME CONSTRAINT monitoring_metrics_legacy_pkey TO %I', name || '_pkey');
        EXECUTE format('ALTER TABLE mlops_internal.monitoring_metrics_legacy RENAME TO %I', name);
    END IF;
END $name$
"""

# For the next upgrade, which builds the key of the partition of that name.
NAME_OLDEST_LEGACY = """
DO $name$
DECLARE
    oldest constant text := (
        SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = 'public.monitoring_metrics'::regclass AND relname ~ '^monitoring_metrics_[0-9]{4}_[0-9]{2}$'
         ORDER BY relname LIMIT 1
    );
BEGIN
    IF to_regclass('mlops_internal.monitoring_metrics_legacy') IS NULL THEN
        IF oldest IS NULL THEN
            RAISE object_not_in_prerequisite_state USING
                MESSAGE = 'monitoring_metrics has no month left, and revision 0016 needs one; nothing was changed',
                HINT = 'Make some, then run it again: alembic upgrade head; mlops-db maintain';
        END IF;
        EXECUTE format('ALTER TABLE mlops_internal.%I RENAME TO monitoring_metrics_legacy', oldest);
    END IF;
END $name$
"""


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.create_index_concurrently(
        "monitoring_metrics_legacy_pkey",
        "monitoring_metrics_legacy",
        COLUMNS,
        schema="mlops_internal",
        unique=True,
        postgresql_include=INCLUDED,
    )
    # For the wait, and for months that have rows.
    op.execute(LONG_TIMEOUT)
    # Months begin in UTC, also in a session that a caller brought.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
    op.execute(WAIT_FOR_AUTOVACUUM)
    # In the order in which writers take them; the other way round, both would wait for each other.
    op.execute("LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute(USE_INDEX)
    op.execute(OWN_TABLESPACE_UNNAMED)
    op.execute(ADD_KEY)
    op.execute(NAME_BY_MONTH)


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute("ALTER TABLE public.monitoring_metrics DROP CONSTRAINT monitoring_metrics_pkey")
    op.execute(NAME_OLDEST_LEGACY)
