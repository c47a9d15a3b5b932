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


# Alembic keeps the environment of the running command in a module, so two threads would share one.
_one_command = threading.Lock()


def upgrade(settings: Settings, revision: str = "head", *, progress: TextIO | None = None) -> None:
    """Run every revision that the database lacks, up to `revision`.

    Args:
        settings: where the database is.
        revision: Alembic's target: an id, `head`, or relative as in `+1`.
        progress: a stream for the progress; None shows none.

    Raises:
        MlopsDbError: what went wrong and what to do about it.
        CommandError: Alembic knows no such revision.
    """
    run_command(command.upgrade, alembic_config(settings, progress=progress), revision)


def downgrade(settings: Settings, revision: str, *, progress: TextIO | None = None) -> None:
    """Revert revisions until the database is at `revision`; `base` for all of them.

    Arguments and errors are the same as for `upgrade`.
    """
    run_command(command.downgrade, alembic_config(settings, progress=progress), revision)


def alembic_config(settings: Settings, *, ini: Path | None = None, **attributes: object) -> Config:
    """Alembic's configuration for a database.

    Args:
        settings: where the database is.
        ini: the alembic.ini of the project; default: the one of this project.
        attributes: further `config.attributes` of `mlops_db.migration.run`.
    """
    config = Config(ini or alembic_ini())
    config.attributes.update(attributes, settings=settings)
    return config


def run_command(function: Callable[..., object], config: Config, *arguments: object, **options: object) -> None:
    """Run one of `alembic.command`'s functions, one at a time in this process.

    Raises:
        MlopsDbError: what went wrong and what to do about it.
        CommandError: Alembic's own error, such as for an unknown revision.
    """
    with _one_command:
        try:
            function(config, *arguments, **options)
        except CommandError as error:
            if isinstance(error.__cause__, MlopsDbError):
                raise error.__cause__ from None
            raise
