"""Give the partitioned monitoring_metrics its key.

Why: one index serves as key, for the history of a series, and for its newest row: (model_name, metric_type,
    metric_name, timestamp, id). It holds metric_value, too, so that a history is read from the index alone. For the old
    rows it is built while others read and write. That is why revision 0016 leaves it to this one: there, building it
    would keep them out for longer than the rewrite does.
Locks: SHARE UPDATE EXCLUSIVE on monitoring_metrics_legacy while its index is built, which keeps nobody from reading or
    writing; then ACCESS EXCLUSIVE on monitoring_metrics and its partitions, for a moment if the other partitions have
    few rows, as they do right after revision 0016. After a downgrade from a later revision the months have theirs, and
    their keys are built under that lock. Downgrade takes it for a moment.
Loss on downgrade: nothing.

If it is interrupted while the index is built, run it again: it drops the invalid index and builds a new one (with a
script of --sql, drop the index first). If all old rows are of this month, as in a new database without rows, their
partition gets that month's name.
"""

from alembic import op

revision = "0017"
down_revision = "0016"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

COLUMNS = ["model_name", "metric_type", "metric_name", "timestamp", "id"]
INCLUDED = ["metric_value"]


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
    op.execute_file("0007_long_statement_timeout.sql")
    # Months begin in UTC, also in the session of a caller.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
    op.execute_file("0017_wait_for_autovacuum.sql")
    # In the order in which writers lock them. In another order, they and the run would wait for each other.
    op.execute("LOCK TABLE ONLY public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute(
        """
        ALTER TABLE mlops_internal.monitoring_metrics_legacy
            ADD CONSTRAINT monitoring_metrics_legacy_pkey PRIMARY KEY USING INDEX monitoring_metrics_legacy_pkey
        """
    )
    op.execute_file("0016_default_tablespace.sql")
    op.execute_file("0017_key.sql")
    op.execute_file("0017_name_by_month.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute("ALTER TABLE public.monitoring_metrics DROP CONSTRAINT monitoring_metrics_pkey")
    op.execute_file("0017_name_oldest_legacy.sql")
