"""${message}.

Why: <the reason for this change, in a sentence or two>
Locks: <which lock on which table, and for how long>
Loss on downgrade: <what downgrade cannot bring back, or "nothing">
"""

import sqlalchemy as sa
from alembic import op
${imports + "\n" if imports else ""}\

revision = "${up_revision}"
down_revision = ${'"%s"' % down_revision if isinstance(down_revision, str) else repr(down_revision)}
% if branch_labels:
branch_labels = ${repr(branch_labels)}
% endif
% if depends_on:
depends_on = ${repr(depends_on)}
% endif


def upgrade() -> None:
    ${upgrades if upgrades else "raise NotImplementedError"}


def downgrade() -> None:
    ${downgrades if downgrades else "raise NotImplementedError"}
