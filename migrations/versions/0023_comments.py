"""Describe every table, column and view in the database.

Why: BI tools, psql and docs/schema.md show comments: readers of a table need no other page.
Locks: SHARE UPDATE EXCLUSIVE on the tables and ACCESS EXCLUSIVE on none: COMMENT keeps nobody from reading or writing.
Loss on downgrade: the comments, those included that somebody had set by hand on the same objects before.
Running code: unaffected.
"""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.execute_file("0023_comments.sql")


def downgrade() -> None:
    op.execute_file("0023_drop_comments.sql")
