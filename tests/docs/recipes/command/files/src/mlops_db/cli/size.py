"""Show how large the database is on disk."""

from argparse import ArgumentParser, Namespace

from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import add_json
from mlops_db.server.connection import open_cursor
from mlops_db.settings import Settings

SIZE = "SELECT pg_database_size(current_database()), pg_size_pretty(pg_database_size(current_database()))"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)


def run(options: Namespace) -> int:
    """Print the size."""
    settings = Settings.from_environment()
    with open_cursor(settings) as cursor:
        cursor.execute(SIZE)
        ((number, text),) = cursor.fetchall()
    if options.json:
        print_json({"target": settings.target, "bytes": number, "size": text})
    else:
        print_line(f"{settings.target}: {text}")
    return 0
