"""Bring the metrics back from the nodes of a Citus cluster to the coordinator.

Afterwards the tables are as `mlops-db distribute` found them, with their comments, grants and views. It is all done or
not at all. Readers and writers of the metrics wait while the rows move, and the coordinator needs the space.
"""

import sys
from argparse import ArgumentParser, Namespace

from mlops_db.admin.cluster.undistribute import plan_return, undistribute
from mlops_db.cli.output import print_json, print_line, print_table
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Bring them back and report, or plan and report."""
    settings = Settings.from_environment()
    outcome = plan_return(settings) if options.dry_run else undistribute(settings, progress=sys.stderr)
    if options.json:
        print_json({"target": settings.target, "done": not options.dry_run, **vars(outcome)})
        return 0
    remark = " Nothing was changed (--dry-run)." if options.dry_run else ""
    if options.dry_run and outcome.steps:
        print_table(("action", "name"), [(step.action, step.name) for step in outcome.steps])
        print_line(f"{outcome.expectation}.")
    result = "nothing to do, the tables are plain" if not outcome.steps else (
        "the tables are to be plain again" if options.dry_run else "the tables are plain again"
    )  # fmt: skip
    print_line(f"{settings.target}: {result}.{remark}")
    return 0
