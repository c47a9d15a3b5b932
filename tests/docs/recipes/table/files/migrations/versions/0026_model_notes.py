"""Create model_notes: what people noted about models.

Why: people want to know later what was odd about a model, and no other table has a place for it.
Locks: none that anybody waits for: the table is new. Downgrade takes ACCESS EXCLUSIVE on it, for a moment.
Loss on downgrade: all notes.
Running code: unaffected.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.create_table(
        "model_notes",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=False),
            nullable=False,
            comment="Counts the notes about all models.",
        ),
        sa.Column("model_name", sa.Text(), nullable=False, comment="The model that it is about."),
        sa.Column("note", sa.Text(), nullable=False, comment="The note, in words."),
        sa.Column(
            "noted_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("CURRENT_TIMESTAMP"),
            nullable=False,
            comment="When it was noted.",
        ),
        sa.CheckConstraint(
            "timezone('UTC', noted_at) >= timestamp '0001-01-01' AND timezone('UTC', noted_at) < timestamp '10000-01-01'",
            name=op.f("model_notes_noted_at_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("model_notes_pkey")),
        schema="public",
        comment="What people noted about models.",
    )
    op.create_index("model_notes_model_name_id_idx", "model_notes", ["model_name", "id"], unique=False, schema="public")


def downgrade() -> None:
    op.drop_index("model_notes_model_name_id_idx", table_name="model_notes", schema="public")
    op.drop_table("model_notes", schema="public")
