"""A project of its own for `mlops-db lint`: an alembic.ini and revisions that tests write."""

import shutil
import textwrap
from pathlib import Path

from support.database import ROOT

HEADER = """\
\"\"\"{title}.

Why: a test asks for it.
Locks: {locks}
Loss on downgrade: nothing.
\"\"\"

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {before!r}
"""


def empty_project(folder: Path) -> Path:
    """A project without revisions; returns its alembic.ini."""
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__", "0*"))
    return Path(shutil.copy(ROOT / "alembic.ini", folder))


def copied_project(folder: Path) -> Path:
    """A copy of this project's revisions; returns its alembic.ini."""
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    return Path(shutil.copy(ROOT / "alembic.ini", folder))


def versions(ini: Path) -> Path:
    return ini.parent / "migrations" / "versions"


def source(
    revision: str, before: str | tuple[str, ...] | None, upgrade: str, downgrade: str, *,
    locks: str = "ACCESS EXCLUSIVE, for a moment.", title: str = "Change something",
) -> str:  # fmt: skip
    """A revision's source, without a fault of its own. `upgrade` and `downgrade` are Python."""
    functions = "".join(
        f"\n\ndef {name}() -> None:\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
        for name, body in (("upgrade", upgrade), ("downgrade", downgrade))
    )
    return HEADER.format(title=title, locks=locks, revision=revision, before=before) + functions


def add_revision(ini: Path, upgrade: str, downgrade: str, **parts: str) -> str:
    """Add a revision after the last one, named after its number; returns the file's name."""
    last = max((path.name[:4] for path in versions(ini).glob("[0-9]*.py")), default=None)
    number = f"{int(last or '4') + 1:04}"
    file = versions(ini) / f"{number}_change.py"
    file.write_text(source(number, last, upgrade, downgrade, **parts), encoding="utf-8")
    return file.name
