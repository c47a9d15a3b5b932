"""Create the database and upgrade it to head; quick if nothing is left to do."""

import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress

from mlops_db.admin.status import find_remaining
from mlops_db.cli.create import create
from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.errors import RefusedError, UnknownRevisionError
from mlops_db.project import BASELINE_TABLES, BASELINE_VIEWS
from mlops_db.revisions.gate import newer_note
from mlops_db.revisions.graph import Revision, package_graph
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import Settings

OBJECTS = (*BASELINE_TABLES, *BASELINE_VIEWS)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Create the database, upgrade it to head, and report it in the specification's words."""
    settings = Settings.from_environment()
    graph = package_graph()  # refuses faulty revisions before a database is created
    created = create(settings, options)
    if options.dry_run and created:
        pending, note = graph.pending(), ""
    else:
        pending, note = _upgrade(settings, dry_run=options.dry_run)
    if options.json:
        result = {"done": not options.dry_run, "created": created, "upgraded": pending}
        print_json({"target": settings.target, **result})
    elif options.dry_run:
        for revision in pending:
            print_line(f"Revision {revision.id} {revision.title} would run")
        print_line("Nothing was changed (--dry-run).")
    else:
        done = "Created {} tables:" if pending else "Nothing to do, these {} tables are there:"
        print_line("✅ Database initialized successfully")
        print_line("\n".join((done.format(len(OBJECTS)), *(f"  - {name}" for name in OBJECTS))))
    if note:
        print_line(note, file=sys.stderr)
    return 0


def _upgrade(settings: Settings, *, dry_run: bool) -> tuple[tuple[Revision, ...], str]:
    """Run what is pending; returns it, and what the user should know about the database.

    Raises:
        RefusedError: a table or view of ours is missing at head.
    """
    before = after = find_remaining(settings)
    pending = before.position.pending
    if pending and not dry_run:
        # Alembic takes most of a second to import; a container that restarts at head does without.
        from mlops_db.migration.commands import upgrade  # noqa: PLC0415

        with suppress(UnknownRevisionError):  # a newer container was quicker; whether this code works there comes next
            upgrade(settings, progress=sys.stderr)
        after = find_remaining(settings)
    if after.missing and not after.position.pending:
        raise RefusedError(
            f"{settings.target} is at head, but somebody dropped {', '.join(after.missing)}",
            hint="`mlops-db check --sql` prints the statements that create them again. Restore rows from a backup.",
        )
    notes = [newer_note(after.position, settings.target)] if after.position.is_newer else []
    notes += [EVERYBODY_NOTE] if after.everybody_may_create else []
    return pending, "\n".join(notes)
