"""The revisions of this project, read from the names of their files: enough to know the head without Alembic.

A file is named NNNN_slug.py, its revision id is NNNN, and each revision follows the one before it. Tests hold every
file to that, so the names can be trusted.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = _PACKAGE / "_alembic"

# The last revision of the specification's own schema, where databases that were made by hand come in.
BASELINE = "0004"


@dataclass(frozen=True)
class Revision:
    """A revision as its file name tells it.

    Attributes:
        id: what `alembic_version` holds at this revision, such as `0003`.
        title: the rest of the file name, such as `retraining_decisions`.
    """

    id: str
    title: str


def alembic_ini() -> Path:
    """The project's alembic.ini, with migrations/ beside it.

    ALEMBIC_CONFIG names it, as it does for Alembic itself; otherwise it is the one in the package if that was
    installed, or the one of the checkout around it.
    """
    given = os.environ.get("ALEMBIC_CONFIG")
    if given:
        return Path(given)
    return (_INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parents[1]) / "alembic.ini"


def revisions() -> tuple[Revision, ...]:
    """All revisions, from the first one to head."""
    names = sorted(path.stem for path in (alembic_ini().parent / "migrations" / "versions").glob("[0-9]*_*.py"))
    return tuple(Revision(number, title) for number, _, title in (name.partition("_") for name in names))


def pending(current: str | None) -> tuple[Revision, ...] | None:
    """The revisions that an upgrade from `current` (None: base) to head runs; None if `current` is not ours."""
    known = revisions()
    if current is None:
        return known
    ids = [revision.id for revision in known]
    return known[ids.index(current) + 1 :] if current in ids else None
