"""Create the database and upgrade it to head; quick if nothing is left to do."""

import sys
from argparse import ArgumentParser, Namespace

from mlops_db.admin.status import what_remains
from mlops_db.errors import DriftedError
from mlops_db.project import TABLES, VIEWS
from mlops_db.revisions.graph import package_graph
from mlops_db.server.create_database import create_database
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""


def run(_options: Namespace) -> int:
    """Create the database, upgrade it to head, and say so in the specification's words."""
    settings = Settings.from_environment()
    package_graph()  # refuses what could only end halfway, before there is a database
    create_database(settings)
    objects = (*TABLES, *VIEWS)
    found = what_remains(settings)
    heading = f"Nothing to do, these {len(objects)} tables are there:"
    if found.pending:
        # Alembic takes most of a second to import; a container that restarts at head does without.
        from mlops_db.migration.commands import upgrade  # noqa: PLC0415

        upgrade(settings, progress=sys.stderr)
        found = what_remains(settings)
        heading = f"Created {len(objects)} tables:"
    if found.missing:
        raise DriftedError(found.missing, settings.target)
    print("✅ Database initialized successfully", heading, *(f"  - {name}" for name in objects), sep="\n")
    if found.everybody_may_create:
        print(EVERYBODY_NOTE, file=sys.stderr)
    return 0
