"""Compare the database, object by object, with what its revisions make."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlops_db.admin.status import everybody_may_create
from mlops_db.cli.output import print_details, print_table
from mlops_db.drift.compare import read_drift
from mlops_db.drift.repair import repair_statements
from mlops_db.errors import alembic
from mlops_db.lint.run import CHECKS, check_revisions
from mlops_db.revisions.graph import project_ini, revisions
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import EMBEDDED_SERVER, Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--revisions", action="store_true", help="check the revisions instead, on the embedded server")
    what.add_argument("--sql", action="store_true", help="print the statements that repair it; the rest to stderr")


def run(options: Namespace) -> int:
    """Print what is wrong; 0 if nothing is."""
    return _check_revisions() if options.revisions else _check_database(with_sql=options.sql)


def _check_database(*, with_sql: bool) -> int:
    settings = Settings.from_environment()
    drift = read_drift(settings)
    found = drift.differences
    told = sys.stderr if with_sql else sys.stdout
    for difference in found:
        print(difference, file=told)
        print_details(difference, file=told)
    for line in drift.theirs:
        print(line, file=told)
    if with_sql:
        for statement in repair_statements(drift):
            print(statement)
    count = f"{len(found)} {'difference' if len(found) == 1 else 'differences'}" if found else "no difference"
    head = revisions()[-1].id
    behind = "" if drift.revision == head else f" (head is {head}: {alembic('upgrade head')})"
    print(f"{settings.target} at revision {drift.revision}{behind}: {count}", file=told)
    if everybody_may_create(settings):
        print(EVERYBODY_NOTE, file=sys.stderr)
    return 1 if found else 0


def _check_revisions() -> int:
    # Always there: a colleague's .env may name a server where nobody wants scratch databases.
    report = check_revisions(EMBEDDED_SERVER, project_ini(), progress=sys.stderr)
    print_table(
        ("revision", *CHECKS), [(file, *(report.verdict(file, check) for check in CHECKS)) for file in report.files]
    )
    for finding in report.findings:
        print(finding)
    count = f"{len(report.findings)} finding{'' if len(report.findings) == 1 else 's'}"
    print(f"{len(report.files)} revisions: {count if report.findings else 'nothing found'}")
    return 1 if report.findings else 0
