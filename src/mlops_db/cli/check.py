"""`mlops-db check`: whether the database is what its revisions make; with `--revisions`, whether those are sound."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlops_db.inspection.drift import read_drift
from mlops_db.inspection.repair import repair_statements
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from argparse import Namespace


def run(options: Namespace) -> int:
    """Print what differs; 0 if nothing does."""
    settings = Settings.from_environment()
    drift = read_drift(settings)
    found = drift.differences
    told = sys.stderr if options.sql else sys.stdout
    for difference in found:
        print(difference, file=told)
    if options.sql:
        for statement in repair_statements(drift):
            print(statement)
    count = f"{len(found)} {'difference' if len(found) == 1 else 'differences'}" if found else "no difference"
    print(f"{settings.target} at revision {drift.revision}: {count}", file=told)
    return 1 if found else 0
