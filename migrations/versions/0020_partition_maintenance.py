"""Create the functions that keep the partitions of monitoring_metrics: ahead, in months, and no longer than wanted.

Why: each month needs its partition before its rows come; rows that came early or late belong into months; the oldest
    months go when they are older than wanted. And rows that came past the triggers, by logical replication or
    `pg_restore --data-only`, belong to series that nobody registered, and have ids that the sequences do not know. All
    of it is in SQL, so that `mlops-db maintain`, pg_cron (`CALL mlops_internal.maintain('90 days')`) and an Airflow
    task do the same.
Locks: none. When they are called, the functions take SHARE UPDATE EXCLUSIVE on monitoring_metrics, which keeps other
    maintenance out, and then ACCESS EXCLUSIVE: for a moment to create and to drop; and while rows are moved, some 0.7
    seconds per 100,000 (docs/scaling.md). Rows that stay in monitoring_metrics_earlier are read once for each month
    that is moved out of it.
Loss on downgrade: nothing but the functions.
Running code: unaffected.

Each function takes one step in the transaction of its caller, and returns what it did; NULL means that nothing is left
to do. Only one maintenance runs at a time. The next one waits for it, whatever lock_timeout is: for a minute, or as
long as the setting mlops_db.lock_wait says. Then it looks for what is left to do. Only a role that may write to the
table can take the lock that they wait for. model_versions and retraining_decisions are never touched.

The functions run with the rights of their caller. That has to be the owner, and nobody else may call them. Names
without a schema are PostgreSQL's. A procedure that commits cannot have a search path of its own (manual, "CREATE
PROCEDURE"), so `maintain` calls nothing without naming its schema.
"""

from alembic import op

revision = "0020"
down_revision = "0019"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# Each file creates a routine, and revokes EXECUTE on it from PUBLIC.
ROUTINES = {
    "0020_metric_partitions.sql": "metric_partitions()",
    "0020_begin_maintenance.sql": "begin_maintenance()",
    "0020_name_of_month.sql": "name_of_month(timestamptz)",
    "0020_create_next_partition.sql": "create_next_partition(integer)",
    "0020_move_earlier_month.sql": "move_earlier_month()",
    "0020_partitions_older_than.sql": "partitions_older_than(interval)",
    "0020_drop_partitions.sql": "drop_partitions(interval)",
    "0020_missing_series.sql": "missing_series(integer)",
    "0020_register_missing_series.sql": "register_missing_series()",
    "0020_late_sequences.sql": "late_sequences()",
    "0020_advance_sequences.sql": "advance_sequences()",
    "0020_maintain.sql": "maintain(interval, integer)",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    for file in ROUTINES:
        op.execute_file(file)
    op.execute_file("0020_comments.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    for signature in reversed(ROUTINES.values()):
        op.execute(f"DROP ROUTINE mlops_internal.{signature}")
    op.execute("COMMENT ON FUNCTION mlops_internal.register_series(text, text, text) IS NULL")
    op.execute("COMMENT ON FUNCTION mlops_internal.register_new_series() IS NULL")
