"""`mlops-db check`: compares the database with what its revisions make; `--revisions` is `mlops-db lint`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlops_db.admin.status import everybody_may_create
from mlops_db.cli import lint
from mlops_db.cli.output import print_details
from mlops_db.drift.compare import read_drift
from mlops_db.drift.repair import repair_statements
from mlops_db.errors import alembic
from mlops_db.revisions.graph import revisions
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from argparse import Namespace


def run(options: Namespace) -> int:
    """Print every difference, and with `--sql` the statements that repair them; 0 if there is none."""
    if options.revisions:
        return lint.run(options)
    settings = Settings.from_environment()
    drift = read_drift(settings)
    found = drift.differences
    report = sys.stderr if options.sql else sys.stdout
    for difference in found:
        print(difference, file=report)
        print_details(difference, report)
    for line in drift.theirs:
        print(line, file=report)
    if options.sql:
        for statement in repair_statements(drift):
            print(statement)
    count = f"{len(found)} {'difference' if len(found) == 1 else 'differences'}" if found else "no difference"
    head = revisions()[-1].id
    behind = "" if drift.revision == head else f" (head is {head}: {alembic('upgrade head')})"
    print(f"{settings.target} at revision {drift.revision}{behind}: {count}", file=report)
    if everybody_may_create(settings):
        print(EVERYBODY_NOTE, file=sys.stderr)
    return 1 if found else 0
