"""Create the schema reporting: what people look at, as views and one function.

Why: the three views of schema public know the newest value only, one period of each version, and gates as a document.
    Dashboards need the history: each value with its bounds and state, each period in production, each gate, and series
    by day. They are in a schema of their own, so that public keeps the six objects of the specification.
Locks: ACCESS SHARE on the tables, and for the downgrade ACCESS EXCLUSIVE on the views, for a moment.
Loss on downgrade: nothing, views hold no rows; but grants on these objects go with them. What others have created in
    the schema, or built on its views, makes the downgrade fail.
Running code: unaffected.
"""

from alembic import op

revision = "0024"
down_revision = "0023"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0024_stop_if_taken.sql")
    op.execute("CREATE SCHEMA reporting")
    op.execute_file("0024_metric_history.sql")
    op.execute_file("0024_production_periods.sql")
    op.execute_file("0024_decision_gates.sql")
    op.execute_file("0024_metric_daily.sql")
    op.execute_file("0024_comments.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0024_stop_if_others.sql")
    op.execute("DROP FUNCTION reporting.metric_daily(timestamptz, timestamptz)")
    for view in ("decision_gates", "production_periods", "metric_history"):
        op.execute(f"DROP VIEW reporting.{view}")
    op.execute("DROP SCHEMA reporting")
