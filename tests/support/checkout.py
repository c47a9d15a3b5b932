"""A copy of this checkout, for what would leave something behind in it."""

import shutil
from pathlib import Path

from support.database import ROOT

MADE_HERE = (".*cache", ".git", ".hypothesis", ".mlops-db", ".uv", ".venv", "__pycache__", "uv.lock")


def copy_checkout(target: Path) -> None:
    """Copy it to a folder that is not there yet, without what was made in it."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*MADE_HERE))
