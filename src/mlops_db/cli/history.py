"""`mlops-db history`: what migration runs did to this database."""

import json
from argparse import Namespace
from dataclasses import asdict

from mlops_db.cli.output import print_table
from mlops_db.migration.history import Entry, read_history
from mlops_db.migration.progress import duration
from mlops_db.settings import Settings

COLUMNS = ("started (UTC)", "direction", "revision", "outcome", "took", "role", "client")


def run(options: Namespace) -> int:
    """Print the latest entries."""
    settings = Settings.from_environment()
    entries = read_history(settings, limit=options.limit)
    if options.json:
        print(json.dumps([asdict(entry) for entry in entries], default=str, ensure_ascii=False, indent=2))
    elif not entries:
        print(f"{settings.target}: no migration run has been recorded here")
    else:
        print_table(COLUMNS, [_row(entry) for entry in entries], right=("took",))
        for entry in entries:
            if entry.error:
                print(f"\n{entry.direction} {entry.revision} at {_utc(entry)}: {entry.error}")
    return 0


def _row(entry: Entry) -> tuple[str, ...]:
    took = "" if entry.finished_at is None else duration((entry.finished_at - entry.started_at).total_seconds())
    return _utc(entry), entry.direction, entry.revision, entry.outcome, took, entry.role, entry.client


def _utc(entry: Entry) -> str:
    return f"{entry.started_at:%Y-%m-%d %H:%M:%S}"
