"""Partition monitoring_metrics by month, with 64-bit ids, and hold it to clean values.

Why: monitoring adds rows for ever. With months, the oldest rows go by dropping a table in milliseconds instead of by
    deleting rows for minutes. And ids of 32 bits run out within two years at 800 models. A value that is NaN or
    infinite spoils every average; a row without series or moment answers no question. NULL as a value means that it
    could not be computed.
Locks: ACCESS SHARE on monitoring_metrics while its rows are read for the findings; then ACCESS EXCLUSIVE on it and on
    v_recent_monitoring while the table is rewritten with 64-bit ids, about 1 second per million rows, by how busy two
    cores were (docs/scaling.md): readers and writers of metrics wait for that long. It is the one stall of the upgrade;
    wider ids cannot avoid it. After the rewrite the table becomes a partition without another copy. Revision 0017
    builds its key while others read and write. Until then PostgreSQL cannot publish an UPDATE or DELETE, so both fail
    with a publication FOR ALL TABLES. Downgrade copies all rows under ACCESS EXCLUSIVE, 2 to 5 seconds per million.
Loss on downgrade: nothing of the rows. The months become one table again.
Accepted: running-code, because a row without a series answers no question, and no code of this package wrote one.

The partitions are in mlops_internal: one for the old rows up to the end of this month (monitoring_metrics_legacy), one
for each of the three months ahead, and two without an end, monitoring_metrics_earlier and _later, for older and newer
rows, so that no insert fails because a partition is missing. They replace a DEFAULT partition: beside one, PostgreSQL does not
know that partitions are in the order of time, and looks for the newest row of a series in all of them (10 times slower
with 24 months; docs/scaling.md).

The revision stops before it locks the table, and names everything that is in its way: rows that break a rule, as in
revision 0008; objects of others that would stay with the old table, such as a trigger, a policy, an index or a column;
objects that would still read only the old rows, such as a view or a function with a body in SQL; and a role that is
not the table's owner, because the new table would belong to it. Grants are carried over.
"""

from alembic import op

revision = "0016"
down_revision = "0015"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# What breaks each rule. `mlops-db adopt` reads it, too.
TABLE = "monitoring_metrics"
BROKEN = {
    "metric_type is NULL": "metric_type IS NULL",
    "metric_name is NULL": "metric_name IS NULL",
    "metric_value is NaN or infinite": "metric_value IN ('NaN', 'Infinity', '-Infinity')",
    "timestamp is NULL or not of the years 1 to 9999": """timestamp IS NULL OR NOT (timezone('UTC', timestamp) >= timestamp '0001-01-01' AND timezone('UTC', timestamp) < timestamp '10000-01-01')""",
    "created_at is NULL or not of the years 1 to 9999": """created_at IS NULL OR NOT (timezone('UTC', created_at) >= timestamp '0001-01-01' AND timezone('UTC', created_at) < timestamp '10000-01-01')""",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0007_long_statement_timeout.sql")
    # Months begin in UTC, also in the session of a caller.
    op.execute("SET LOCAL timezone = 'UTC'")
    op.execute("SET LOCAL datestyle = 'ISO'")
    op.stop_if_broken(TABLE, BROKEN, revision=revision)
    op.execute_file("0016_stop_if_not_alone.sql")
    # In the order in which readers of the view lock. In another order, they and the run would wait for each other.
    op.execute("DROP VIEW public.v_recent_monitoring")
    op.execute("LOCK TABLE public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute_file("0016_stop_if_not_alone.sql")  # again, for what came in between
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON public.monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON public.monitoring_metrics")
    op.execute_file("0016_step_aside.sql")
    op.execute_file("0016_default_tablespace.sql")
    op.execute_file("0016_monitoring_metrics.sql")
    op.execute_file("0016_carry_grants_over.sql")
    op.execute_file("0016_attach_old_rows.sql")
    op.execute_file("0014_triggers.sql")
    op.execute_file("0016_v_recent_monitoring.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0007_long_statement_timeout.sql")
    op.execute_file("0016_stop_if_not_alone.sql")
    op.execute("DROP VIEW public.v_recent_monitoring")
    op.execute("LOCK TABLE public.monitoring_metrics IN ACCESS EXCLUSIVE MODE")
    op.execute_file("0016_stop_if_ids_too_large.sql")
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON public.monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON public.monitoring_metrics")
    op.execute_file("0016_step_aside.sql")
    op.execute_file("0016_monitoring_metrics_before.sql")
    op.execute_file("0016_carry_grants_over.sql")
    op.execute_file("0016_copy_back.sql")
    # A statement of its own: in production the run compares the rows that go with the rows that were copied.
    op.execute("DROP TABLE mlops_internal.monitoring_metrics")
    op.execute("ALTER TABLE public.monitoring_metrics ADD CONSTRAINT monitoring_metrics_pkey PRIMARY KEY (id)")
    op.execute_file("0014_triggers.sql")
    op.execute_file("0016_v_recent_monitoring.sql")
