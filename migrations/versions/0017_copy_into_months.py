"""Copy the rows of monitoring_metrics into the months.

Why: the second part of what revision 0016 begins. Rows that change meanwhile are in its log, so the copy locks no row.
Locks: none but ACCESS SHARE on monitoring_metrics, in each batch. Downgrade builds the key of the copy that revision
    0018 fills going down, and replays the log; nobody uses that copy yet.
Disk: 0.9 times monitoring_metrics, for the copy; going down, 0.2 times, for its key. The changes that revision 0016
    logs meanwhile come on top. The swap of revision 0019 (going down, of 0016) drops one table.
Loss on downgrade: nothing. Before the swap of revision 0019, the copied rows, which are in the table, too.
Running code: unaffected.
Distributed tables: not monitoring_metrics, not mlops_internal.metric_series; the rows are copied within one server.
Giving up: alembic downgrade 0015 drops the copy; going down, alembic upgrade 0019.
"""

from alembic import op

revision = "0017"
down_revision = "0016"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.run_in_batches(
        """
        INSERT INTO mlops_internal.monitoring_metrics_copy
               (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name)
        SELECT id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name
          FROM mlops_internal.metrics_for_months
         WHERE id > :after AND id <= :upto
        """,
        table="metrics_for_months",
        key="id",
        schema="mlops_internal",
        target="1s",  # no row is locked meanwhile
    )


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_long_statement_timeout.sql")
    op.execute_file("0016_default_tablespace.sql")
    op.execute_file("0016_stop_if_ids_do_not_fit.sql")
    op.execute_file("0017_complete_one_table.sql")
