"""New revisions get the next number: 0005 after 0004. `mlops_db.schema.revisions` relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.operations.ops import MigrationScript
    from alembic.runtime.migration import MigrationContext


def give_next_number(migration: MigrationContext, _: Any, directives: Sequence[MigrationScript]) -> None:
    """Alembic's process_revision_directives: number what `alembic revision` makes, unless --rev-id said how."""
    assert migration.script is not None
    if migration.opts["revision_context"].command_args["rev_id"]:
        return
    taken = [int(script.revision) for script in migration.script.walk_revisions() if script.revision.isdigit()]
    for number, directive in enumerate(directives, max(taken, default=0) + 1):
        directive.rev_id = f"{number:04}"
