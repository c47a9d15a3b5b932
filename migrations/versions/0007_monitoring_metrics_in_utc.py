"""Give the timestamps of monitoring_metrics a time zone.

Why: as in revision 0005.
Locks: ACCESS EXCLUSIVE on monitoring_metrics and v_recent_monitoring, for a moment; with -x legacy-timezone for the
    time of a rewrite, some 2 seconds per million rows (docs/scaling.md).
Loss on downgrade: the time zone, as in revision 0005.

v_recent_monitoring takes the age against the clock instead of the UTC clock. Nothing else of it changes.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    convert("timestamptz", "0007_v_recent_monitoring.sql")


def downgrade() -> None:
    convert("timestamp", "0007_v_recent_monitoring_before.sql")


def convert(type_: str, view: str) -> None:
    op.execute(SAFE_PATH)
    op.execute("DROP VIEW public.v_recent_monitoring")
    op.execute_file("0007_long_statement_timeout.sql")
    op.execute_file("0005_legacy_time_zone.sql")
    op.execute(
        f"""
        ALTER TABLE public.monitoring_metrics
            -- squawk-ignore changing-column-type
            ALTER COLUMN timestamp TYPE {type_},
            -- squawk-ignore changing-column-type
            ALTER COLUMN created_at TYPE {type_}
        """
    )
    op.execute_file(view)
