"""Give the months their key, and what changed during the copy.

Why: one index serves as key, for the history of a series, and for its newest row: (model_name, metric_type,
    metric_name, timestamp, id). It holds metric_value, too, so that a history is read from the index alone. Built after
    the copy it is quicker and smaller than one that each row is entered into. The rows are counted here, outside of the
    lock of revision 0019: the swap compares the numbers.
Locks: none that anybody waits for: ACCESS SHARE on monitoring_metrics while its rows are counted; nobody uses the copy.
    Downgrade copies the rows in batches, as revision 0017 does going up.
Disk: 0.8 times monitoring_metrics, for the key, with the temporary files of the largest month; 1.1 times if the names of
    the series are long; going down, 0.8 times, for the copy.
Loss on downgrade: nothing.
Running code: unaffected.
Distributed tables: not monitoring_metrics, not mlops_internal.metric_series; the rows are copied within one server.
Giving up: alembic downgrade 0015 drops the copy; going down, alembic upgrade 0019.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_long_statement_timeout.sql")
    op.execute_file("0016_default_tablespace.sql")
    op.execute_file("0018_complete_months.sql")


def downgrade() -> None:
    op.run_in_batches(
        """
        INSERT INTO mlops_internal.monitoring_metrics_copy
               (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name)
        SELECT id, timestamp, metric_type, metric_name, metric_value, metadata, created_at, model_name
          FROM mlops_internal.metrics_for_one_table
         WHERE id > :after AND id <= :upto
        """,
        table="metrics_for_one_table",
        key="id",
        schema="mlops_internal",
        target="1s",  # no row is locked meanwhile
    )
