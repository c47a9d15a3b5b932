"""Let the monthly monitoring_metrics take the place of the plain one.

Why: the last part of what revision 0016 begins.
Locks: what is left of the log is replayed first. Then ACCESS EXCLUSIVE on monitoring_metrics and v_recent_monitoring for
    a moment, in which the changes of the last moment are replayed and the names are swapped. Downgrade begins the way
    back: SHARE UPDATE EXCLUSIVE on monitoring_metrics while an index on the ids is built, and SHARE ROW EXCLUSIVE for a
    moment, to create the triggers of the log.
Loss on downgrade: nothing.
Running code: breaks: clients that compare the timestamps with moments without time zone, as in revision 0005, or that
    rely on a key on id alone (ON CONFLICT).
Distributed tables: not monitoring_metrics, not mlops_internal.metric_series; the names are swapped, and a log has
    triggers.

The swap stops if the copy does not have as many rows as the table, if partitions came or went, or if somebody disabled
or dropped triggers of the log; then nothing has changed. It stops for what is in its way, too, as revision 0016 does. Grants
are carried over. If going down is interrupted while the index is built, run it again; or, to stay, drop the index
monitoring_metrics_id_idx.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    begin()
    op.execute_file("0016_stop_if_not_alone.sql")
    op.execute_file("0013_wait_for_autovacuum.sql")
    op.execute_file("0016_replay_most.sql")  # after the wait, in which others go on changing rows
    # In the order in which readers of the view lock. In another order, they and the run would wait for each other.
    op.execute("DROP VIEW public.v_recent_monitoring")
    op.execute("LOCK TABLE public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute_file("0016_stop_if_not_alone.sql")  # again, for what came in between
    op.execute_file("0016_replay_rest.sql")
    op.execute_file("0016_carry_grants_over.sql")
    op.execute_file("0016_drop_one.sql")
    op.execute_file("0016_take_its_place.sql")
    op.execute_file("0015_triggers.sql")
    op.execute_file("0019_v_recent_monitoring.sql")


def downgrade() -> None:
    begin()
    op.execute_file("0016_stop_if_not_alone.sql")
    op.execute_file("0016_stop_if_ids_do_not_fit.sql")
    op.execute_file("0019_stop_if_ids_repeat.sql")
    # For the batches of revision 0018, which go by id. It ends the transaction.
    op.create_index_concurrently("monitoring_metrics_id_idx", "monitoring_metrics", ["id"], schema="public")
    begin()
    op.execute_file("0016_stop_if_not_alone.sql")
    op.execute_file("0019_one_table.sql")
    op.execute_file("0013_wait_for_autovacuum.sql")
    op.execute_file("0016_changes.sql")
    op.execute_file("0019_rows_to_copy.sql")
    op.execute_file("0019_replay_changes.sql")
    op.execute_file("0019_log_changes.sql")
    op.execute_file("0016_remember_triggers.sql")


def begin() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_long_statement_timeout.sql")
    # Months begin in UTC, also in the session of a caller.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
