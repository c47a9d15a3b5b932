"""New revision files get the next number: 0005 after 0004, and acme_0002 after acme_0001 in a folder beside ours.

None is written into the installed package.
"""

from __future__ import annotations

import re
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError

from mlops_db.errors import RefusedError
from mlops_db.migration.revision_graph import our_folder, refuse_several_heads
from mlops_db.revisions.files import VALID_ID, is_an_id

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

# In a checkout, the revisions are outside of it.
PACKAGE = Path(__file__).resolve().parents[1]
# The id that Alembic takes without --rev-id (alembic.util.rev_id).
_RANDOM_ID = re.compile(r"[0-9a-f]{12}")
# An id of a project beside ours, such as acme_0001.
_NUMBERED = re.compile(r"(.+)_\d+")


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


def place_of_new_file(script: ScriptDirectory, head: Any, version_path: str | None) -> Path:
    """The folder that a new revision is written to.

    Args:
        script: the directory of the command.
        head: of the command line: what the revision follows.
        version_path: of the command line.

    Raises:
        RefusedError: `head` is not clear, or a revision of ours would follow theirs, or one would merge both.
    """
    if head in (None, "head"):
        refuse_several_heads(script, "Say with --head what the new revision follows")
    followed = [found for found in script.get_revisions(head or "head") if found is not None]
    folders = [Path(found.path).parent.resolve() for found in followed]
    folder = (
        Path(version_path).resolve() if version_path else folders[0] if folders else Path(script.versions).resolve()
    )
    ours = our_folder(script)
    if folder != ours and all(place == ours for place in folders):
        return folder  # a branch of theirs begins
    for found, place in zip(followed, folders, strict=True):
        if (place == ours) != (folder == ours):
            raise RefusedError(
                f"a revision in {folder} cannot follow {found.revision}, which is in another folder: a later revision "
                "of that folder would make a second head of it",
                hint="Two lines need no merge: `alembic upgrade heads` runs both. If yours needs one of mlops-db, say "
                "so with --depends-on.",
            )
    return folder


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
        try:
            folder = place_of_new_file(script, head, options.get("version_path"))
            refuse_package(folder)
            given = None if rev_id is None and _RANDOM_ID.fullmatch(revid) else revid
            revid = _id_of_new_file(script, folder, head, options.get("branch_labels"), given)
        except RefusedError as error:
            raise CommandError(f"{error}\nHint: {error.hint}") from error
        return generate(revid, message, head, **options)

    script.generate_revision = generate_numbered  # type: ignore[assignment, method-assign]  # of this one command


def _id_of_new_file(script: ScriptDirectory, folder: Path, head: Any, label: str | None, given: str | None) -> str:
    """The given id, or the next number; in a folder of others after the prefix of their revisions, or a new label.

    Raises:
        RefusedError: there would be no prefix, or the id would not be valid.
    """
    prefix = ""
    if folder != our_folder(script):
        numbered = (_NUMBERED.fullmatch(found.revision) for found in script.get_revisions(head or "head"))
        prefix = next((f"{match[1]}_" for match in numbered if match), f"{label}_" if label else "")
        if given.isdigit() if given else not prefix:
            raise RefusedError(
                f"the new revision {given or 'of this branch'} has no prefix, and plain numbers are for mlops-db",
                hint="Begin a branch with --head base --branch-label acme, or give an id: --rev-id acme_0001.",
            )
    ids = (found.revision for found in script.walk_revisions())
    numbers = (one.removeprefix(prefix) for one in ids if one.startswith(prefix))
    new = given or f"{prefix}{max((int(number) for number in numbers if number.isdigit()), default=0) + 1:04}"
    if not is_an_id(new):
        raise RefusedError(
            f"the new revision would be {new!r}, which is not a valid id", hint=f"Give {VALID_ID}: --rev-id."
        )
    return new
