"""Compare the database, object by object, with what its revisions create."""

import sys
from argparse import ArgumentParser, Namespace

from mlops_db.admin.status import everybody_may_create
from mlops_db.cli import lint
from mlops_db.cli.output import Styled, difference_for_json, print_details, print_json, print_line, state
from mlops_db.cli.parser import add_json
from mlops_db.drift.compare import read_drift
from mlops_db.drift.repair import repair_statements
from mlops_db.errors import alembic
from mlops_db.revisions.graph import revisions
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--revisions", action="store_true", help="the same as mlops-db lint")
    what.add_argument("--sql", action="store_true", help="print the statements that repair it; the rest to stderr")
    add_json(parser)


def run(options: Namespace) -> int:
    """Print every difference, and with `--sql` the statements that repair them; 0 if there is none."""
    if options.revisions:
        return lint.run(options)
    settings = Settings.from_environment()
    drift = read_drift(settings)
    found = drift.differences
    head = revisions()[-1].id
    statements = list(repair_statements(drift)) if options.sql else []
    if options.json:
        print_json(
            {
                "target": settings.target,
                "revision": drift.revision,
                "head": head,
                "differences": [difference_for_json(difference) for difference in found],
                "theirs": drift.theirs,
                "everybody_may_create": everybody_may_create(settings),
                **({"repair": statements} if options.sql else {}),
            }
        )
        return 1 if found else 0
    report = sys.stderr if options.sql else sys.stdout
    for difference in found:
        print_line(str(difference), file=report)
        print_details(difference, file=report)
    for line in drift.theirs:
        print_line(line, file=report)
    for statement in statements:
        print(statement)  # SQL is for copying, and not wrapped
    count = (
        Styled(f"{len(found)} {'difference' if len(found) == 1 else 'differences'}", "bold red")
        if found
        else state("no difference")
    )
    behind = "" if drift.revision == head else f" (head is {head}: {alembic('upgrade head')})"
    print_line(f"{settings.target} at revision {drift.revision}{behind}: ", count, file=report)
    if everybody_may_create(settings):
        print_line(EVERYBODY_NOTE, file=sys.stderr)
    return 1 if found else 0
