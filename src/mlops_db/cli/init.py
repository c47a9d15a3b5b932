"""`mlops-db init`: create the database and bring it to head."""

from argparse import Namespace

from mlops_db.errors import MlopsDbError
from mlops_db.inspection.status import is_at_head
from mlops_db.schema.objects import TABLES, VIEWS
from mlops_db.server.create_database import create_database
from mlops_db.settings import Settings


def run(_: Namespace) -> int:
    """Create the database, upgrade it to head, and say so in the specification's words."""
    settings = Settings.from_environment()
    create_database(settings)
    objects = (*TABLES, *VIEWS)
    if is_at_head(settings):
        heading = f"Nothing to do, these {len(objects)} tables are there:"
    else:
        _upgrade(settings)
        heading = f"Created {len(objects)} tables:"
    print("✅ Database initialized successfully", heading, *(f"  - {name}" for name in objects), sep="\n")
    return 0


def _upgrade(settings: Settings) -> None:
    # Alembic takes most of a second to import; a container that restarts at head does without.
    from alembic.util import CommandError  # noqa: PLC0415

    from mlops_db.migration.commands import upgrade_to_head  # noqa: PLC0415

    try:
        upgrade_to_head(settings)
    except CommandError as error:
        if isinstance(error.__cause__, MlopsDbError):
            raise error.__cause__ from error
        raise
