"""Bring a database that schema.sql created under Alembic, with its rows.

It compares the database with revisions 0001 to 0004. If the three tables are the same, it records revision 0004 and
replaces the three views. If they differ, it prints the statements that make them the same, and changes nothing.
"""

from argparse import ArgumentParser, Namespace

from mlops_db.admin.adopt import Judgement, adopt
from mlops_db.cli.output import Styled, difference_for_json, print_details, print_json, print_line
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.errors import alembic, printable
from mlops_db.project import BASELINE
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Adopt and report; 1 if the tables differ."""
    settings = Settings.from_environment()
    judgement = adopt(settings, dry_run=options.dry_run)
    if options.json:
        adopted = not (judgement.obstacles or options.dry_run)
        obstacles = [difference_for_json(obstacle) for obstacle in judgement.obstacles]
        print_json({"target": settings.target, "adopted": adopted, **vars(judgement), "obstacles": obstacles})
    else:
        _print_findings(judgement)
        _print_result(judgement, settings.target, dry_run=options.dry_run)
    return 1 if judgement.obstacles else 0


def _print_findings(judgement: Judgement) -> None:
    for line in judgement.views:
        print_line(line)
    for name in judgement.left_alone:
        print_line(f"left alone: {printable(name)}")
    for obstacle in judgement.obstacles:
        print_line(Styled("in the way:", "bold red"), f" {obstacle}")
        print_details(obstacle)
    for rule in judgement.broken:
        if rule.count is not None or not judgement.obstacles:
            print_line(Styled("to fix:", "yellow"), f" {rule}")
            print(f"    {rule.select}")  # SQL is for copying, and not wrapped


def _print_result(judgement: Judgement, target: str, *, dry_run: bool) -> None:
    if judgement.obstacles:
        print_line('Tables of another shape can be moved instead: docs/moving-in.md, "Older or wider shapes".')
        print_line(f"{target} differs from the specification and was not changed. These statements fix that:")
        print(*judgement.remedy, sep="\n")
    elif dry_run:
        same = (
            "tables are the specification's; the views above are replaced"
            if judgement.views
            else ("tables and views are the specification's")
        )
        print_line(f"{target}: the {same}. Nothing was changed (--dry-run).")
        if judgement.broken:
            print_line(f"The rows to fix do not block `mlops-db adopt`, but `{alembic('upgrade head')}` stops at them.")
    else:
        fix = "fix the rows above, then " if judgement.broken else ""
        print_line(f"✅ {target} is now at revision {BASELINE}, with every row. Next: {fix}{alembic('upgrade head')}")
