"""Reads what a revision would do, without running it: its docstring, and the SQL that it writes in `--sql` mode."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext

from mlops_db.migration.operations import REVISION_FILE  # which registers the operations
from mlops_db.migration.step import STEP, RunningStep
from mlops_db.migration.transaction import RevisionTransaction

if TYPE_CHECKING:
    from alembic.script import Script

GIVING_UP = "Giving up"
RUNNING_CODE = "Running code"
DISTRIBUTED_TABLES = "Distributed tables"
SECTIONS = ("Why", "Locks", "Loss on downgrade", RUNNING_CODE)
_SECTION = re.compile(rf"^({'|'.join((*SECTIONS, 'Disk', DISTRIBUTED_TABLES, GIVING_UP, 'Accepted'))}):", re.MULTILINE)


@dataclass(frozen=True)
class Description:
    """The parts of a revision's docstring.

    Attributes:
        title: its first line, without the full stop.
        sections: the text of `Why`, `Locks`, `Disk`, `Loss on downgrade`, `Running code`, `Distributed tables`,
            `Giving up` and `Accepted`, each on one line, without missing ones.
    """

    title: str
    sections: dict[str, str]


def describe(docstring: str) -> Description:
    """Split the docstring of a revision into its parts."""
    marks = list(_SECTION.finditer(docstring))
    sections = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        body = docstring[mark.end() : following.start() if following else None]
        # A section ends where the next one begins, or at an empty line, after which prose may follow.
        sections[mark[1]] = " ".join(body.partition("\n\n")[0].split())
    return Description(docstring.strip().partition("\n")[0].rstrip("."), sections)


def written_sql(revision: Script, direction: str) -> str | None:
    """The SQL that a revision's `upgrade` or `downgrade` writes in `--sql` mode; None if it needs a database for it."""
    buffer = io.StringIO()
    migration = MigrationContext.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        opts={
            "as_sql": True,
            "output_buffer": buffer,
            "literal_binds": True,
            REVISION_FILE: Path(revision.path),
            STEP: RunningStep(revision.revision, direction, RevisionTransaction(revision.revision, None)),
        },
    )
    try:
        with Operations.context(migration):
            getattr(revision.module, direction)()
    except Exception:  # noqa: BLE001  (without rows, a revision may fail in any way)
        return None
    return buffer.getvalue()
