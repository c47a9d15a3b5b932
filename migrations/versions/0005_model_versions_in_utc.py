"""Give the timestamps of model_versions a time zone.

Why: the specification says that all timestamps are in UTC. A column without time zone cannot keep that promise: a
    session in another zone writes another moment. With a time zone each row holds a moment, in every session's
    zone.
Locks: ACCESS EXCLUSIVE on model_versions, v_decision_history and v_model_timeline, for a moment: in a session in UTC
    PostgreSQL keeps the values as they are (manual, "ALTER TABLE", Notes: a binary coercible type needs no rewrite).
    With `-x legacy-timezone=Europe/Berlin` the table is rewritten under that lock, some 2 seconds per million rows.
Loss on downgrade: the time zone, which is UTC then; nothing else. With -x legacy-timezone, an hour that a clock change
    had twice comes back as it was, one that it skipped does not.
Running code: breaks: clients that compare created_at or promoted_at with a moment without time zone, such as Python's
    datetime.utcnow(), also where the views show them.

If the server wrote local time, give its zone with `-x legacy-timezone=Europe/Berlin`, in the run of this revision, of
0006 and of 0016. PostgreSQL decides what the times of a clock change mean: the offset before the change for a time that
was skipped, standard time for one that was there twice.

The views read the columns. So they are dropped, and created again with the text of revision 0004.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    convert("timestamptz")


def downgrade() -> None:
    convert("timestamp")


def convert(type_: str) -> None:
    op.execute(SAFE_PATH)
    op.execute("DROP VIEW public.v_model_timeline")
    op.execute("DROP VIEW public.v_decision_history")
    op.execute_file("0005_legacy_time_zone.sql")
    op.execute(
        f"""
        ALTER TABLE public.model_versions
            -- squawk-ignore changing-column-type
            ALTER COLUMN created_at TYPE {type_},
            -- squawk-ignore changing-column-type
            ALTER COLUMN promoted_at TYPE {type_}
        """
    )
    op.execute_file("0005_v_decision_history.sql")
    op.execute_file("0005_v_model_timeline.sql")
