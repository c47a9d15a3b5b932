"""Show what migration runs did, newest first."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from mlops_db.cli.output import print_json, print_line, print_table, state
from mlops_db.cli.parser import add_json, whole_number
from mlops_db.migration.history import Entry, read_history
from mlops_db.migration.progress import duration
from mlops_db.revisions.graph import revisions
from mlops_db.settings import Settings

COLUMNS = ("started (UTC)", "direction", "revision", "outcome", "took", "role", "client")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--limit", type=whole_number(1), default=20, metavar="N", help="how many entries (default: 20)")
    add_json(parser)


def run(options: Namespace) -> int:
    """Print the latest entries."""
    settings = Settings.from_environment()
    entries = read_history(settings, limit=options.limit)
    if options.json:
        print_json({"schema": "history-1", "target": settings.target, "entries": entries})
    elif not entries:
        print_line(f"{settings.target}: no migration run has been recorded here")
    else:
        titles = {revision.id: revision.title.replace("_", " ") for revision in revisions()}
        print_table(COLUMNS, [_row(entry, titles) for entry in entries], right=("took",))
        for entry in entries:
            if entry.error:
                print_line(f"\n{entry.direction} {entry.revision} at {_utc(entry)}: {entry.error}")
            if entry.backup:
                print_line(f"\n{entry.direction} {entry.revision} at {_utc(entry)}: backup {entry.backup}")
    return 0


def _row(entry: Entry, titles: Mapping[str, str]) -> tuple[str, ...]:
    revision = f"{entry.revision} {titles.get(entry.revision, '')}".rstrip()
    took = "" if entry.finished_at is None else duration((entry.finished_at - entry.started_at).total_seconds())
    return _utc(entry), entry.direction, revision, state(entry.outcome), took, entry.role, entry.client


def _utc(entry: Entry) -> str:
    return f"{entry.started_at:%Y-%m-%d %H:%M:%S}"
