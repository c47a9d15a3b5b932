"""New revision files: they get the next number, 0005 after 0004, and none is written into the installed package."""

from __future__ import annotations

import re
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError

from mlops_db.errors import RefusedError

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

# In a checkout, the revisions are outside of it.
PACKAGE = Path(__file__).resolve().parents[1]
# The id that Alembic takes without --rev-id (alembic.util.rev_id).
_RANDOM_ID = re.compile(r"[0-9a-f]{12}")


def is_in_package(path: Path) -> bool:
    """Whether it belongs to the package that pip installed."""
    return path.resolve().is_relative_to(PACKAGE)


def refuse_package(path: Path) -> None:
    """Refuse to write a revision into the package.

    Raises:
        RefusedError: the path is in the package.
    """
    if is_in_package(path):
        raise RefusedError(
            f"{path} belongs to the installed package: the next version of the package replaces what is written there",
            hint="Write revisions in a checkout of mlops-db. Or use -c with an alembic.ini of your own, which has "
            "a folder of yours in its version_locations.",
        )


def number_new_files(script: ScriptDirectory, *, rev_id: str | None) -> None:
    """Number the files that one command of Alembic's writes into this directory, unless --rev-id gave an id.

    The function that writes them is wrapped, because `alembic merge` calls no hook. It runs when the environment has
    ended, so a refusal is a CommandError as those of `migration.run`.

    Args:
        script: the directory of the command.
        rev_id: what --rev-id gave; None if that is not known, as for `merge`, which has its id already.
    """
    generate = script.generate_revision

    @wraps(generate)
    def generate_numbered(revid: str, message: str | None, head: Any = None, **options: Any) -> Script | None:
        folders_of_heads = (Path(found.path).parent for found in script.get_revisions(head or "head"))
        folder = options.get("version_path") or next(folders_of_heads, None) or script.versions
        try:
            refuse_package(Path(folder))
        except RefusedError as error:
            raise CommandError(f"{error}\nHint: {error.hint}") from error
        if rev_id is None and _RANDOM_ID.fullmatch(revid):
            numbers = [int(found.revision) for found in script.walk_revisions() if found.revision.isdigit()]
            revid = f"{max(numbers, default=0) + 1:04}"
        return generate(revid, message, head, **options)

    script.generate_revision = generate_numbered  # type: ignore[assignment, method-assign]  # of this one command
