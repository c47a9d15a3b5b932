"""Let a role, such as a dashboard's, read the views and nothing else."""

import sys
from argparse import ArgumentParser, Namespace

from mlops_db.admin.roles import READER_FUNCTIONS, READER_VIEWS, grant_reader
from mlops_db.admin.status import require_usable
from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("role", help="an existing role: best without LOGIN, and granted to the logins")
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Grant and report."""
    settings = Settings.from_environment()
    require_usable(settings)
    everybody_may_create = grant_reader(settings, options.role, dry_run=options.dry_run)
    if options.json:
        print_json(
            {
                "target": settings.target,
                "role": options.role,
                "granted": not options.dry_run,
                "views": [view.removeprefix("public.") for view in READER_VIEWS],
                "functions": READER_FUNCTIONS,
                "everybody_may_create": everybody_may_create,
            }
        )
        return 0
    names = ", ".join(name.removeprefix("public.") for name in (*READER_VIEWS, *READER_FUNCTIONS))
    reads = f"read {names} of {settings.target}, and nothing else"
    if options.dry_run:
        print_line(f'Role "{options.role}" could {reads}. Nothing was changed (--dry-run).')
    else:
        print_line(f'✅ Role "{options.role}" may {reads}')
    if everybody_may_create:
        print_line(EVERYBODY_NOTE, file=sys.stderr)
    return 0
