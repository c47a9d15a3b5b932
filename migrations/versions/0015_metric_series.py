"""Create the catalogue of metric series, and let triggers fill it.

Why: v_recent_monitoring asks for the newest row of every series. Over millions of rows that is quick only if the list
    of series is known. The catalogue is that list: one row for each (model_name, metric_type, metric_name). It also
    holds how often a value is expected and what is normal, so that a series that fell silent shows instead of
    vanishing.
Locks: SHARE ROW EXCLUSIVE on monitoring_metrics for a moment, for the triggers. Downgrade takes ACCESS EXCLUSIVE for a
    moment.
Loss on downgrade: expected intervals and thresholds.
Running code: unaffected.

The triggers look at the rows of a statement together, so that no row of the catalogue is hot, and touch no series that
is there already. Their query is planned each time: EXECUTE costs a tenth of a millisecond, a cached plan made COPY
10 to 20 % slower (docs/scaling.md).

The triggers do not call register_series. It is for a writer whose rows fire no trigger, such as one with
session_replication_role = replica. Both functions run with the rights of their owner, so a role that inserts metrics
needs no other grant. Therefore only the owner may call them or create a trigger with them; such a writer gets EXECUTE
on mlops_internal.register_series. The trigger refuses every table but monitoring_metrics, whose columns have types of
PostgreSQL's own; on Citus also its shards, where it runs. Names without a schema in the functions are PostgreSQL's
(manual, "Writing SECURITY DEFINER Functions Safely").
"""

from alembic import op

revision = "0015"
down_revision = "0014"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0015_metric_series.sql")
    op.execute_file("0015_register_series.sql")
    op.execute_file("0015_register_new_series.sql")
    op.execute_file("0015_triggers.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_wait_for_autovacuum.sql")
    op.execute("DROP TRIGGER monitoring_metrics_register_updated_series ON public.monitoring_metrics")
    op.execute("DROP TRIGGER monitoring_metrics_register_series ON public.monitoring_metrics")
    op.execute("DROP FUNCTION mlops_internal.register_new_series()")
    op.execute("DROP FUNCTION mlops_internal.register_series(text, text, text)")
    op.execute("DROP TABLE mlops_internal.metric_series")
