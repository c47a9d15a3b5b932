"""Fill an empty database with a year of made-up versions, decisions and metrics, to try views and dashboards.

There is no --dry-run: a database that is not empty is refused, and `alembic downgrade base` empties it again.
"""

import logging
import sys
import time
from argparse import ArgumentParser, Namespace

from mlops_db.admin.retention import maintain
from mlops_db.cli.output import Styled, print_json, print_line
from mlops_db.cli.parser import add_json, whole_number
from mlops_db.demo.fill import Filled, fill
from mlops_db.errors import alembic
from mlops_db.migration.progress import Progress, duration
from mlops_db.server.waiting import wait_without_callback
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager

# What there is to see, and the command that shows it.
LOOK_AT = {
    "what is not ok, worst first": "mlops-db health",
    "all of it on one page": "mlops-db report",
    "which version ran when, and its gain": (
        'mlops-db psql -c "SELECT model_name, model_version, promoted_at::date, production_until::date, '
        'round(f1_delta::numeric, 4) AS f1_delta FROM v_model_timeline WHERE promoted_at IS NOT NULL"'
    ),
    "why candidates were promoted or not": (
        'mlops-db psql -c "SELECT decision_timestamp::date, model_name, action, first_failed_gate, reasoning '
        'FROM v_decision_history LIMIT 20"'
    ),
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    # The story needs three months, and two years are written in a minute.
    parser.add_argument(
        "--days",
        type=whole_number(90, 730),
        default=365,
        metavar="N",
        help="days to generate, 90 to 730 (default: 365)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="the same seed gives the same numbers (default: 1)"
    )
    add_json(parser)


def run(options: Namespace) -> int:
    """Fill the database, and print what to look at."""
    settings = Settings.from_environment()
    began = time.monotonic()
    progress = Progress(sys.stderr)
    try:
        filled = _fill(settings, progress, days=options.days, seed=options.seed)
        progress.begin("Moving the metrics into the partitions of their months")
        maintain(settings, keep=None)
        progress.done()
    finally:
        progress.stop()
    if options.json:
        print_json({"target": settings.target, "days": options.days, **vars(filled), "look_at": [*LOOK_AT.values()]})
        return 0
    print_line(
        f"{settings.target}: {options.days} days of {filled.models} models, in {duration(time.monotonic() - began)}: "
        f"{filled.versions} versions, {filled.decisions} decisions, {filled.metrics:,} metrics"
    )
    for what, command in LOOK_AT.items():
        print_line(Styled(f"\n# {what}\n", "dim"), command)
    return 0


def _fill(settings: Settings, progress: Progress, *, days: int, seed: int) -> Filled:
    writing = False
    # If Control-C comes while a connection goes back, the pool logs a traceback. The interruption is reported below.
    logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())

    def show(done: int, total: int) -> None:
        nonlocal writing
        writing = True
        if done:
            progress.report("metrics", done, total)
        else:
            progress.begin(f"Writing {total} days")

    try:
        with wait_without_callback(), DatabaseManager(settings) as db:
            filled = fill(db, days=days, seed=seed, progress=show)
        progress.done()
    except KeyboardInterrupt:
        progress.stop()
        if writing:
            print_line(
                Styled("interrupted", "bold yellow"),
                f"; {settings.target} is filled in part\n"
                f"hint: `{alembic('downgrade base')}` and `{alembic('upgrade head')}` empty it.",
                file=sys.stderr,
            )
        raise
    return filled
