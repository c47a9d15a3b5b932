"""Manage the monthly partitions of monitoring_metrics: create, fill and drop them.

It also registers missing series and advances sequences, for rows that came without triggers. Run it once a day.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter

from mlops_db.admin.retention import Step, maintain, plan, read_interval
from mlops_db.admin.status import require_usable
from mlops_db.cli.output import print_json, print_line, print_table
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.settings import Settings

# What a number of steps did: of one, of several.
DONE = {
    "create": ("partition created", "partitions created"),
    "move": ("partition filled with moved rows", "partitions filled with moved rows"),
    "drop": ("partition dropped", "partitions dropped"),
    "register": ("series registered", "series registered"),
    "advance": ("sequence advanced", "sequences advanced"),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--keep",
        type=read_interval,
        metavar="TIME",
        help="drop the months older than that: 90d, 12w, 6mo, 2y (default: drop none)",
    )
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Maintain and report, or plan and report."""
    settings = Settings.from_environment()
    require_usable(settings)
    if options.dry_run:
        steps = plan(settings, keep=options.keep)
    else:
        steps = maintain(settings, keep=options.keep, progress=sys.stderr)
    if options.json:
        print_json({"target": settings.target, "done": not options.dry_run, "steps": steps})
        return 0
    counts: Counter[str] = Counter()
    for step in steps:
        counts[step.action] += (step.rows or 0) if step.action == "register" else 1
    if options.dry_run:
        if steps:
            print_table(("action", "name", "rows", "size"), list(map(_row, steps)), right=("rows", "size"))
        summary = [
            f"{count} {'series ' if action == 'register' else ''}to {action}" for action, count in counts.items()
        ]
    else:
        summary = [f"{count} {DONE[action][count != 1]}" for action, count in counts.items()]
    remark = " Nothing was changed (--dry-run)." if options.dry_run else ""
    print_line(f"{settings.target}: {', '.join(summary) or 'nothing to do'}.{remark}")
    return 0


def _row(step: Step) -> tuple[str, ...]:
    return step.action, step.name, "" if step.rows is None else f"{step.rows:,}", step.size or ""
