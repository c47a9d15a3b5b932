"""Create the database, unless it exists. This is the step before `alembic upgrade head`."""

from argparse import ArgumentParser, Namespace

from mlops_db.server.create_database import create_database
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""


def run(_: Namespace) -> int:
    """Create the database, unless it exists."""
    create_database(Settings.from_environment())
    return 0
