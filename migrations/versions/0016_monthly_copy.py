"""Make a monthly monitoring_metrics beside the plain one, and log what changes meanwhile.

Why: monitoring adds rows for ever. With months, the oldest rows go by dropping a table in milliseconds instead of by
    deleting rows for minutes. And ids of 32 bits run out within two years at 800 models. A plain table cannot become a
    partitioned one. So revisions 0016 to 0019 do what pgroll and gh-ost do: a table beside, a log of changes, a copy in
    batches, and a swap of the names at the end. Going down, the same revisions do the same in the other order.
Locks: ACCESS SHARE on monitoring_metrics while its moments are read; SHARE ROW EXCLUSIVE for a moment, to create the
    triggers. Downgrade replays what is left of the log before it takes ACCESS EXCLUSIVE on monitoring_metrics and
    v_recent_monitoring; under it, it replays the changes of the last moment and swaps the names.
Loss on downgrade: nothing. Before the swap of revision 0019, the half-filled copy; the rows are in the table.
Running code: unaffected. The triggers only log, and need no grant.
Distributed tables: not monitoring_metrics, not mlops_internal.metric_series; the copy and its log are on one
    server, and a log has triggers.

The months are in mlops_internal: one for each from the oldest row to three months ahead, and two without an end,
monitoring_metrics_earlier and _later, for older and newer rows, so that no insert fails because a partition is missing.
They replace a DEFAULT partition: beside one, PostgreSQL does not know that partitions are in the order of time, and
looks for the newest row of a series in all of them (10 times slower with 24 months; docs/scaling.md).

Old timestamps get their time zone in the copy, as in revision 0005: give `-x legacy-timezone` in the run of this
revision, or of revision 0019 going down. The revision stops before anything is copied if an object of others would stay
with the old table, such as a trigger, a policy, an index or a column, or would still read it, such as a view; and if
the role is not the table's owner. Revision 0019 looks again.
"""

from alembic import op

revision = "0016"
down_revision = "0015"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    begin()
    op.execute_file("0016_stop_if_not_alone.sql")
    op.execute_file("0016_default_tablespace.sql")
    op.execute_file("0016_by_month.sql")
    op.execute_file("0016_changes.sql")
    op.execute_file("0016_rows_to_copy.sql")
    op.execute_file("0016_months.sql")
    op.execute_file("0016_replay_changes.sql")
    op.execute_file("0013_wait_for_autovacuum.sql")
    op.execute_file("0016_log_changes.sql")
    op.execute_file("0016_remember_triggers.sql")


def downgrade() -> None:
    begin()
    op.execute_file("0016_stop_if_not_alone.sql")
    op.execute_file("0016_stop_if_ids_do_not_fit.sql")
    op.execute_file("0013_wait_for_autovacuum.sql")
    op.execute_file("0016_replay_most.sql")  # after the wait, in which others go on changing rows
    # In the order in which readers of the view lock. In another order, they and the run would wait for each other.
    op.execute("DROP VIEW public.v_recent_monitoring")
    op.execute("LOCK TABLE public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute_file("0016_stop_if_not_alone.sql")  # again, for what came in between
    op.execute_file("0016_stop_if_ids_do_not_fit.sql")
    op.execute_file("0016_replay_rest.sql")
    op.execute_file("0016_carry_grants_over.sql")
    op.execute_file("0016_drop_one.sql")
    op.execute_file("0016_take_its_place.sql")
    op.execute_file("0015_triggers.sql")
    op.execute_file("0016_v_recent_monitoring_before.sql")


def begin() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_long_statement_timeout.sql")
    # Months begin in UTC, also in the session of a caller.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
