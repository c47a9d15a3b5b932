"""Wait until the server, the database and its revision are there; for start-up scripts.

The database is ready at head, and at a newer revision that this code works with. While it is behind head, or this role
may not read its revision yet, a migration may be running: then the command goes on waiting. What waiting cannot change
ends it at once: a wrong password, another tool's database, code that is too old.

It needs no more than the privileges of a job, and does not become MLOPS_OWNER_ROLE. POSTGRES_HOST=embedded starts that
server, as every command does.

The exit code is 0 when all is there. After --timeout it is 2 without a server, and 1 without the database or revision.
"""

import sys
import time
from argparse import ArgumentParser, Namespace

from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import add_json, duration
from mlops_db.migration.progress import duration as in_words
from mlops_db.revisions.readiness import STAGES, wait_until_ready
from mlops_db.settings import Settings

READY = {
    "server": "the server of {} answers",
    "database": "{} is there",
    "head": "{} is ready",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--timeout",
        type=duration("--timeout"),
        default="60s",
        metavar="TIME",
        help="how long to wait: 30 or 30s, 500ms, 2min, 1h; 0 asks once (default: %(default)s)",
    )
    parser.add_argument(
        "--for",
        dest="stage",
        choices=STAGES,
        default="head",
        help="what must be there; server and database are for what runs before a migration (default: %(default)s)",
    )
    add_json(parser)


def run(options: Namespace) -> int:
    """Wait, and report what is still missing."""
    settings = Settings.from_environment()
    begun = time.monotonic()
    shown: type[Exception] | None = None
    for reason in wait_until_ready(settings, timeout=options.timeout / 1000, stage=options.stage):
        # One line for each kind: a migration passes many revisions.
        if type(reason) is not shown:
            limit = "" if shown else f" (at most {in_words(options.timeout / 1000)})"
            print_line(f"waiting{limit}: {reason}", file=sys.stderr)
            shown = type(reason)
    waited_s = time.monotonic() - begun
    if options.json:
        print_json(
            {"target": settings.target, "state": "ready", "waited_for": options.stage, "waited_s": round(waited_s, 3)}
        )
        return 0
    after = f" after {in_words(waited_s)}" if shown else ""
    print_line(f"✅ {READY[options.stage].format(settings.target)}{after}")
    return 0
