"""Register the series of the metrics that are there already.

Why: the triggers of revision 0015 see new rows only. Here the key of the months finds each series with one look, however
    many rows it has.
Locks: ACCESS SHARE on monitoring_metrics, and ROW EXCLUSIVE on metric_series: only a session that registers one of the
    same series waits.
Loss on downgrade: nothing; the catalogue stays as it is, and goes with revision 0015.
Running code: breaks code before 0015: an INSERT of a series that the upgrade has registered. Code that knows the
    catalogue expects that the triggers have filled it.
"""

from alembic import op

revision = "0021"
down_revision = "0020"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0013_long_statement_timeout.sql")
    op.execute("SELECT mlops_internal.register_missing_series()")


def downgrade() -> None:
    """Nothing to take back: registering a series again changes nothing."""
