"""`mlops-db create`: the pre-step."""

from argparse import Namespace

from mlops_db.server.create_database import create_database
from mlops_db.settings import Settings


def run(_: Namespace) -> int:
    """Create the database, unless it exists."""
    create_database(Settings.from_environment())
    return 0
