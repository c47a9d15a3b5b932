"""Give the timestamps of retraining_decisions a time zone.

Why: as in revision 0005. Each revision changes one table: the users of one table do not wait while the run waits for
    another one.
Locks: ACCESS EXCLUSIVE on retraining_decisions and v_decision_history, for a moment; with -x legacy-timezone for the
    time of a rewrite, some 2 seconds per million rows.
Loss on downgrade: the time zone, as in revision 0005.
Running code: breaks: clients that compare the timestamps with moments without time zone, as in revision 0005.
"""

from alembic import op

revision = "0006"
down_revision = "0005"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    convert("timestamptz")


def downgrade() -> None:
    convert("timestamp")


def convert(type_: str) -> None:
    op.execute(SAFE_PATH)
    op.execute("DROP VIEW public.v_decision_history")
    op.execute_file("0005_legacy_time_zone.sql")
    op.execute(
        f"""
        ALTER TABLE public.retraining_decisions
            -- squawk-ignore changing-column-type
            ALTER COLUMN decision_timestamp TYPE {type_},
            -- squawk-ignore changing-column-type
            ALTER COLUMN created_at TYPE {type_}
        """
    )
    op.execute_file("0005_v_decision_history.sql")
