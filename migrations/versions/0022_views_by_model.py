"""Rebuild the three views: by model, and quick however large the tables are.

Why: several models live side by side now, so each view names the model, and the timeline compares a version with the
    predecessor of its own model. A version that was rolled back to was promoted more than once; the decisions know
    when. v_decision_history has the order of an index: LIMIT 10 reads ten rows. v_recent_monitoring goes from the
    catalogue of series to the newest rows by the primary key, instead of sorting all rows, and shows what is stale,
    failed, or beyond its thresholds.
Locks: ACCESS EXCLUSIVE on the views, and ACCESS SHARE on the tables, for a moment.
Loss on downgrade: nothing, views hold no rows.
Running code: breaks: clients that read the columns of a view by position.
"""

from alembic import op

revision = "0022"
down_revision = "0021"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    replace_views("0022_v_decision_history.sql", "0022_v_model_timeline.sql", "0022_v_recent_monitoring.sql")


def downgrade() -> None:
    replace_views("0005_v_decision_history.sql", "0005_v_model_timeline.sql", "0019_v_recent_monitoring.sql")


def replace_views(*files: str) -> None:
    op.execute(SAFE_PATH)
    for view in ("v_decision_history", "v_model_timeline", "v_recent_monitoring"):
        op.execute(f"DROP VIEW public.{view}")
    for file in files:
        op.execute_file(file)
