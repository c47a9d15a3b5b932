"""Let two views say the same as those of schema reporting.

Why: v_recent_monitoring called a value ok although its own metadata said drift_detected; now its health is drifted.
    v_model_timeline shows the latest period of a version; promoted_at is now the moment when that period began, and a
    version that was put into production by hand has the moment of its decision.
Locks: ACCESS EXCLUSIVE on the two views, and ACCESS SHARE on the tables, for a moment.
Loss on downgrade: nothing, views hold no rows; but comments that somebody set by hand on these four columns.
Running code: unaffected.

The columns stay, so the views are replaced in place and keep their comments; four columns get others.
"""

from alembic import op

revision = "0025"
down_revision = "0024"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0025_v_model_timeline.sql")
    op.execute_file("0025_v_recent_monitoring.sql")
    op.execute_file("0025_comments.sql")


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0022_v_model_timeline.sql")
    op.execute_file("0022_v_recent_monitoring.sql")
    op.execute_file("0025_earlier_comments.sql")
