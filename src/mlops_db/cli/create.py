"""Create the database, unless it exists. This is the step before `alembic upgrade head`."""

import sys
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext, redirect_stdout

from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.errors import DatabaseMissingError
from mlops_db.server.citus import refuse_worker
from mlops_db.server.connection import open_cursor
from mlops_db.server.create_database import create_database
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Create the database, unless it exists."""
    settings = Settings.from_environment()
    created = create(settings, options)
    if options.json:
        print_json({"target": settings.target, "done": not options.dry_run, "created": created})
    elif options.dry_run:
        print_line("Nothing was changed (--dry-run).")
    return 0


def create(settings: Settings, options: Namespace) -> bool:
    """Create the database as the command's options say; returns whether it was missing."""
    with redirect_stdout(sys.stderr) if options.json else nullcontext():
        if not options.dry_run:
            return create_database(settings)
        try:
            with open_cursor(settings) as cursor:
                refuse_worker(cursor, settings.target)
        except DatabaseMissingError:
            print_line(f"Database '{settings.database}' would be created")
            return True
        print_line(f"Database '{settings.database}' already exists")
        return False
