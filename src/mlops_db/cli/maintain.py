"""Manage the monthly partitions of monitoring_metrics: create, fill and drop them.

It also registers missing series and advances sequences, for rows that came without triggers. Run it once a day.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from mlops_db.admin.retention import interval_of, maintain, planned
from mlops_db.admin.status import require_head
from mlops_db.cli.output import print_table
from mlops_db.cli.parser import add_dry_run
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from mlops_db.admin.retention import Step

DONE = {"create": "created", "move": "filled with moved rows", "drop": "dropped", "advance": "advanced"}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--keep",
        type=interval_of,
        metavar="TIME",
        help="drop the months older than that: 90d, 12w, 6mo, 2y (default: drop none)",
    )
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Maintain, or with --dry-run tell what would be done."""
    keep = options.keep
    settings = Settings.from_environment()
    require_head(settings)
    steps = planned(settings, keep=keep) if options.dry_run else maintain(settings, keep=keep, progress=sys.stderr)
    if options.dry_run and steps:
        print_table(("action", "name", "rows", "size"), [_row(step) for step in steps], right=("rows", "size"))
    counts: Counter[str] = Counter()
    for step in steps:
        counts[step.action] += (step.rows or 0) if step.action == "register" else 1
    told = ", ".join((_to_do if options.dry_run else _done)(action, count) for action, count in counts.items())
    remark = " Nothing was changed (--dry-run)." if options.dry_run else ""
    print(f"{settings.target}: {told or 'nothing to do'}.{remark}")
    return 0


def _to_do(action: str, count: int) -> str:
    return f"{count} {'series ' if action == 'register' else ''}to {action}"


def _done(action: str, count: int) -> str:
    if action == "register":
        return f"{count} series registered"
    what = "sequence" if action == "advance" else "partition"
    return f"{count} {what}{'' if count == 1 else 's'} {DONE[action]}"


def _row(step: Step) -> tuple[str, ...]:
    return step.action, step.name, "" if step.rows is None else f"{step.rows:,}", step.size or ""
