"""Test revisions on top of this project's, in a copy of alembic.ini and migrations/."""

import shutil
from pathlib import Path

from alembic.config import Config

from mlops_db.migration.commands import alembic_config
from mlops_db.revisions.graph import revisions
from mlops_db.settings import Settings
from support.database import ROOT

HEAD = revisions()[-1].id
FIRST_EXTRA = 9001


def add_revisions(folder: Path, *bodies: str) -> Path:
    """Copy the migrations to `folder` and add revisions 9001, 9002, ... to them.

    A body is Python source that defines upgrade() and downgrade(). `alembic` run in the folder takes them.
    """
    shutil.copy(ROOT / "alembic.ini", folder)
    shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    before = HEAD
    for number, body in enumerate(bodies, FIRST_EXTRA):
        (folder / "migrations" / "versions" / f"{number}_extra.py").write_text(
            f'"""Extra."""\nimport sqlalchemy as sa\nfrom alembic import op\n'
            f'revision = "{number}"\ndown_revision = "{before}"\n{body}',
            encoding="utf-8",
        )
        before = str(number)
    return folder


def config_in(folder: Path, settings: Settings) -> Config:
    """Alembic's configuration for the migrations in `folder`."""
    config = alembic_config(settings)
    config.set_main_option("script_location", str(folder / "migrations"))
    return config
