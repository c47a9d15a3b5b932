"""Let a role, such as a dashboard's, read the three views and nothing else."""

import sys
from argparse import ArgumentParser, Namespace

from mlops_db.admin.roles import grant_reader
from mlops_db.admin.status import require_head
from mlops_db.project import VIEWS
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import Settings


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("role", help="an existing role, best one with NOLOGIN that others are members of")


def run(options: Namespace) -> int:
    """Grant, or say why not."""
    settings = Settings.from_environment()
    require_head(settings)
    may_create = grant_reader(settings, options.role)
    print(f'✅ Role "{options.role}" may read {", ".join(VIEWS)} of {settings.target}, and nothing else')
    if may_create:
        print(EVERYBODY_NOTE, file=sys.stderr)
    return 0
