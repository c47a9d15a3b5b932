"""A copy of this checkout, for what would leave something behind in it."""

import shutil
from pathlib import Path

from support.database import ROOT

MADE_HERE = (".*cache", ".git", ".hypothesis", ".mlops-db", ".uv", ".venv", "__pycache__", "uv.lock")


def copy_checkout(target: Path) -> None:
    """Copy it to a folder that is not there yet, without what was made in it."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*MADE_HERE))


def edited_package(target: Path) -> dict[str, str]:
    """A copy of the package whose first revision was edited; the variables that let a command run from it.

    For that the snapshot does not hold, so a comparison takes a scratch database.
    """
    copy_checkout(target)
    (first,) = target.glob("migrations/versions/0001_*.py")
    first.write_text(first.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    return {"PYTHONPATH": str(target / "src")}
