"""Alembic's commands for Python programs, with this project's alembic.ini and the caller's settings."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TextIO

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from mlops_db.errors import MlopsDbError
from mlops_db.schema.revisions import alembic_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlops_db.settings import Settings


# Alembic keeps the environment of the command that runs in a module: two threads would run in each other's.
_one_command = threading.Lock()


def upgrade(settings: Settings, revision: str = "head", *, progress: TextIO | None = None) -> None:
    """Run every revision that the settings' database lacks, up to `revision`.

    Args:
        settings: where the database is.
        revision: Alembic's target: an id, `head`, or relative as in `+1`.
        progress: a stream that is told what happens; None for none.

    Raises:
        MlopsDbError: what went wrong and what to do about it; its class says which.
    """
    _run(command.upgrade, settings, revision, progress)


def downgrade(settings: Settings, revision: str, *, progress: TextIO | None = None) -> None:
    """Take revisions back until the settings' database is at `revision`; `base` for all of them.

    Args and errors are those of `upgrade`.
    """
    _run(command.downgrade, settings, revision, progress)


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration of this project, for the settings' database."""
    config = Config(alembic_folder() / "alembic.ini")
    config.attributes["settings"] = settings
    return config


def _run(function: Callable[[Config, str], None], settings: Settings, revision: str, progress: TextIO | None) -> None:
    config = alembic_config(settings)
    config.attributes["progress"] = progress
    with _one_command:
        try:
            function(config, revision)
        except CommandError as error:
            if isinstance(error.__cause__, MlopsDbError):
                raise error.__cause__ from None
            raise
