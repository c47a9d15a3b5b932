"""Check the revisions of this project, on scratch databases of the embedded server."""

import sys
from argparse import ArgumentParser, Namespace

from mlops_db.cli.output import Styled, print_json, print_line, print_table, state
from mlops_db.cli.parser import add_json
from mlops_db.lint.rule import COLUMNS
from mlops_db.lint.run import Report, check_revisions
from mlops_db.project import project_ini
from mlops_db.settings import EMBEDDED_SERVER


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)


def run(options: Namespace) -> int:
    """Print a table of the revisions, and every finding; 0 if there is none."""
    # Not the server of the environment: a colleague's .env may name one where nobody wants scratch databases.
    report = check_revisions(EMBEDDED_SERVER, project_ini(), progress=sys.stderr)
    if options.json:
        print_json({"revisions": report.files, "findings": report.findings})
        return 1 if report.findings else 0
    print_table(
        ("revision", *COLUMNS),
        [(file, *(_verdict(report, file, column) for column in COLUMNS)) for file in report.files],
    )
    for finding in report.findings:
        print_line(str(finding))
    count = f"{len(report.findings)} finding{'' if len(report.findings) == 1 else 's'}"
    print_line(
        f"{len(report.files)} revisions: ", Styled(count, "bold red") if report.findings else state("nothing found")
    )
    return 1 if report.findings else 0


def _verdict(report: Report, file: str, column: str) -> str:
    verdict = report.verdict(file, column)
    return Styled(verdict, "bold red") if verdict.isdigit() else state(verdict)
