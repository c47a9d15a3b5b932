<%!
    def statements(body):
        """What Alembic wrote, without its remarks; a revision without statements does not run."""
        lines = [line for line in (body or "").splitlines() if not line.lstrip().startswith("# ###")]
        written = "\n".join(lines).strip()
        return "raise NotImplementedError" if written in ("", "pass") else written

    def opening(message):
        """The docstring's first line: nothing in the message may end the docstring, or mean something else in it."""
        line = " ".join(message.split()).rstrip(".").replace('"' * 3, "'" * 3)
        return ("r" if chr(92) in line else "") + '"' * 3 + line[:1].upper() + line[1:] + "."
%>\
<%
    merges = upgrades is UNDEFINED  # Alembic gives a merge no statements, not even none
%>\
${opening(message)}

% if merges:
Why: ${" and ".join(down_revision)} came from different branches. This revision joins them, and changes nothing.
Locks: none.
Loss on downgrade: nothing.
Running code: unaffected.
"""

revision = "${up_revision}"
down_revision = ${repr(down_revision)}
% if branch_labels:
branch_labels = ${repr(branch_labels)}
% endif


def upgrade() -> None:
    """Nothing: it only joins branches."""


def downgrade() -> None:
    """Nothing: it only joins branches."""
<% return STOP_RENDERING %>
% endif
Why: <the reason for this change, in a sentence or two>
Locks: <which lock on which table, and for how long>
Loss on downgrade: <what downgrade cannot bring back, or "nothing">
Running code: <unaffected. or breaks: what then fails in code that knows only earlier revisions>
"""

% if "sa." in (upgrades or "") + (downgrades or ""):
import sqlalchemy as sa
% endif
from alembic import op
% if imports:
${imports}
% endif

revision = "${up_revision}"
down_revision = ${'"%s"' % down_revision if isinstance(down_revision, str) else repr(down_revision)}
% if branch_labels:
branch_labels = ${repr(branch_labels)}
% endif
% if depends_on:
depends_on = ${repr(depends_on)}
% endif


def upgrade() -> None:
    ${statements(upgrades)}


def downgrade() -> None:
    ${statements(downgrades)}
