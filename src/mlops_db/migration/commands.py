"""Alembic's commands for Python programs, with this project's alembic.ini and the caller's settings."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TextIO

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from mlops_db.errors import MlopsDbError
from mlops_db.project import alembic_ini

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
        CommandError: Alembic knows no such revision.
    """
    run_command(command.upgrade, alembic_config(settings, progress=progress), revision)


def downgrade(settings: Settings, revision: str, *, progress: TextIO | None = None) -> None:
    """Take revisions back until the settings' database is at `revision`; `base` for all of them.

    Args and errors are those of `upgrade`.
    """
    run_command(command.downgrade, alembic_config(settings, progress=progress), revision)


def alembic_config(settings: Settings, *, ini: Path | None = None, **attributes: object) -> Config:
    """Alembic's configuration for the settings' database.

    Args:
        settings: where the database is.
        ini: the alembic.ini of the project; default: this one's.
        attributes: further `config.attributes` that `mlops_db.migration.run` knows.
    """
    config = Config(ini or alembic_ini())
    config.attributes.update(attributes, settings=settings)
    return config


def run_command(function: Callable[..., object], config: Config, *arguments: object, **options: object) -> None:
    """Run one of `alembic.command`'s functions, one at a time in this process.

    Raises:
        MlopsDbError: what went wrong and what to do about it.
        CommandError: Alembic's own refusal, such as of an unknown revision.
    """
    with _one_command:
        try:
            function(config, *arguments, **options)
        except CommandError as error:
            if isinstance(error.__cause__, MlopsDbError):
                raise error.__cause__ from None
            raise
