"""Alembic's commands for Python programs, with this project's alembic.ini and the caller's settings."""

from alembic import command
from alembic.config import Config

from mlops_db.schema.revisions import alembic_folder
from mlops_db.settings import Settings


def upgrade_to_head(settings: Settings) -> None:
    """Run every revision that the settings' database lacks.

    Raises:
        CommandError: what went wrong and what to do; its cause is the `MlopsDbError`.
    """
    command.upgrade(alembic_config(settings), "head")


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration of this project, for the settings' database."""
    config = Config(alembic_folder() / "alembic.ini")
    config.attributes["settings"] = settings
    return config
