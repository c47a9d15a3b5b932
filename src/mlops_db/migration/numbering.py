"""New revisions get the next number: 0005 after 0004."""

from __future__ import annotations

import re
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.operations.ops import MigrationScript
    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script, ScriptDirectory

# What Alembic takes where nobody said --rev-id (alembic.util.rev_id).
_DRAWN = re.compile(r"[0-9a-f]{12}")


def give_next_number(migration: MigrationContext, _: Any, directives: Sequence[MigrationScript]) -> None:
    """Alembic's process_revision_directives: number what `alembic revision` makes, unless --rev-id said how."""
    assert migration.script is not None
    if migration.opts["revision_context"].command_args["rev_id"]:
        return
    for number, directive in enumerate(directives, _next_number(migration.script)):
        directive.rev_id = f"{number:04}"


def give_merge_next_number(script: ScriptDirectory) -> None:
    """Number what `alembic merge` is about to make with this directory, for which it calls no hook.

    It has drawn an id by the time that it writes the file, unless --rev-id said one.
    """
    generate = script.generate_revision

    @wraps(generate)
    def generate_numbered(revid: str, *arguments: Any, **options: Any) -> Script | None:
        number = f"{_next_number(script):04}" if _DRAWN.fullmatch(revid) else revid
        return generate(number, *arguments, **options)

    script.generate_revision = generate_numbered  # type: ignore[method-assign]  # of this one command's directory


def _next_number(script: ScriptDirectory) -> int:
    return max((int(one.revision) for one in script.walk_revisions() if one.revision.isdigit()), default=0) + 1
