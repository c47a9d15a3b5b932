"""Bring a database that schema.sql created under Alembic, with its rows.

It compares the database with revisions 0001 to 0004. If the three tables are the same, it records revision 0004 and
replaces the three views. If they differ, it prints the statements that would make them the same, and changes nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mlops_db.admin.adopt import adopt
from mlops_db.cli.output import print_details
from mlops_db.cli.parser import add_dry_run
from mlops_db.errors import alembic, printable
from mlops_db.project import BASELINE
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Compare, report, and adopt unless something is in the way or it is a dry run."""
    settings = Settings.from_environment()
    judgement = adopt(settings, dry_run=options.dry_run)
    for line in judgement.views:
        print(line)
    for name in judgement.left_alone:
        print(f"left alone: {printable(name)}")
    for obstacle in judgement.obstacles:
        print(f"in the way: {obstacle}")
        print_details(obstacle, sys.stdout)
    for rule in judgement.broken:
        if rule.count is not None or not judgement.obstacles:
            print(f"to mend: {rule}\n    {rule.select}")
    if judgement.obstacles:
        print(f"{settings.target} is not the specification's, and was not changed. These statements would make it so:")
        print(*judgement.remedy, sep="\n")
        return 1
    mend = "mend the rows above, then " if judgement.broken else ""
    views = "the views above are replaced" if judgement.views else "so are the views"
    if options.dry_run:
        print(f"{settings.target}: the tables are the specification's, {views}. Nothing was changed (--dry-run).")
        if mend:
            print(f"The rows to mend keep no one from adopting it; `{alembic('upgrade head')}` stops at them.")
    else:
        following = f"{mend}{alembic('upgrade head')}"
        print(f"✅ {settings.target} is now at revision {BASELINE}, with every row. Next: {following}")
    return 0
