"""Distribute the metrics over the nodes of a Citus cluster, by model.

monitoring_metrics, with its months, and the catalogue of series are put into shards by the hash of model_name. All
other tables stay on the coordinator. It is all done or not at all, and `mlops-db undistribute` brings it back. Then the
roles that read the views get what they need on the nodes, each time. Do it early: readers and writers of the metrics
wait while the rows move.
"""

import sys
from argparse import ArgumentParser, Namespace

from mlops_db.admin.cluster.distribute import EARLY_ROWS, distribute, plan_distribution
from mlops_db.admin.cluster.layout import MAX_SHARDS
from mlops_db.cli.output import print_json, print_line, print_table
from mlops_db.cli.parser import add_dry_run, add_json, whole_number
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--shards",
        type=whole_number(1, MAX_SHARDS),
        metavar="NUMBER",
        help="into how many shards a table is divided (default: four for each node that may have shards)",
    )
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Distribute and report, or plan and report."""
    settings = Settings.from_environment()
    if options.dry_run:
        outcome, missing = plan_distribution(settings, shards=options.shards)
    else:
        outcome, missing = distribute(settings, shards=options.shards, progress=sys.stderr), []
    if options.json:
        print_json({"target": settings.target, "done": not options.dry_run, "missing": missing, **vars(outcome)})
        return 0
    if options.dry_run and outcome.steps:
        print_table(("action", "name"), [(step.action, step.name) for step in outcome.steps])
    for one in missing:
        print_line(f"first, a superuser on {one.where}: {one.what}")
        print(f"    {one.remedy}")  # SQL is for copying, and not wrapped
    remark = " Nothing was changed (--dry-run)." if options.dry_run else ""
    if not outcome.steps:
        print_line(f"{settings.target}: nothing to do, {outcome.shards} shards by model_name.{remark}")
        return 0
    if options.dry_run:
        print_line(f"{outcome.expectation}.")
        if outcome.rows < EARLY_ROWS:
            print_line("Now is the time: the more rows, the longer the wait.")
    shards = f"{outcome.shards} shards by model_name"
    print_line(f"{settings.target}: {f'to be divided into {shards}' if options.dry_run else shards}.{remark}")
    return 0
