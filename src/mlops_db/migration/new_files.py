"""Revisions are written into a checkout or a folder of the user's, never into the package that pip installed."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError

from mlops_db.errors import RefusedError

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

# In a checkout, the revisions are outside of it.
PACKAGE = Path(__file__).resolve().parents[1]


def is_in_package(path: Path) -> bool:
    """Whether it belongs to what pip installed."""
    return path.resolve().is_relative_to(PACKAGE)


def refuse_package(path: Path) -> None:
    """Refuse to write there if that is the package.

    Raises:
        RefusedError: it is.
    """
    if is_in_package(path):
        raise RefusedError(
            f"{path} belongs to the installed package: what is written there goes with its next version",
            hint="Write revisions in a checkout of mlops-db, or with -c and an alembic.ini of yours that has a folder "
            "of yours in its version_locations.",
        )


def refuse_new_file_in_package(script: ScriptDirectory) -> None:
    """Let this directory, of one command of Alembic's, write no revision into the package.

    What it then raises is a CommandError as in `migration.run`: it writes when the environment has ended.
    """
    generate = script.generate_revision

    @wraps(generate)
    def generate_outside(revid: str, message: str | None, head: Any = None, **options: Any) -> Script | None:
        heads = (Path(found.path).parent for found in script.get_revisions(head or "head"))
        folder = options.get("version_path") or next(heads, None) or script.versions
        try:
            refuse_package(Path(folder))
        except RefusedError as error:
            raise CommandError(f"{error}\nHint: {error.hint}") from error
        return generate(revid, message, head, **options)

    script.generate_revision = generate_outside  # type: ignore[assignment, method-assign]
