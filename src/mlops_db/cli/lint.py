"""`mlops-db lint`: checks the revisions of the project at hand, on scratch databases of the embedded server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlops_db.cli.output import print_table
from mlops_db.lint.rule import COLUMNS
from mlops_db.lint.run import check_revisions
from mlops_db.revisions.graph import project_ini
from mlops_db.settings import EMBEDDED_SERVER

if TYPE_CHECKING:
    from argparse import Namespace


def run(_: Namespace) -> int:
    """Print a table of the revisions, and every finding; 0 if there is none."""
    # Not the server of the environment: a colleague's .env may name one where nobody wants scratch databases.
    report = check_revisions(EMBEDDED_SERVER, project_ini(), progress=sys.stderr)
    print_table(
        ("revision", *COLUMNS),
        [(file, *(report.verdict(file, column) for column in COLUMNS)) for file in report.files],
    )
    for finding in report.findings:
        print(finding)
    count = f"{len(report.findings)} finding{'' if len(report.findings) == 1 else 's'}"
    print(f"{len(report.files)} revisions: {count if report.findings else 'nothing found'}")
    return 1 if report.findings else 0
