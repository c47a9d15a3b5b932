"""Let a role, such as a dashboard's, read the views and nothing else."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from mlops_db.admin.roles import READER_FUNCTIONS, READER_VIEWS, grant_reader
from mlops_db.admin.status import require_usable
from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.env_file import read_env_file
from mlops_db.errors import RefusedError, UsageError
from mlops_db.server.guests import EVERYBODY_NOTE
from mlops_db.settings import Settings, read_password_file

PASSWORD = "MLOPS_READER_PASSWORD"  # noqa: S105  (the variable's name)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("role", help="an existing role, best without LOGIN, and granted to the logins; or see --create")
    parser.add_argument(
        "--create",
        action="store_true",
        help=f"create the role if it is missing, and let it log in with the password in {PASSWORD}, each time anew",
    )
    parser.add_argument("--password-file", type=Path, metavar="FILE", help=f"with --create: instead of {PASSWORD}")
    add_json(parser)
    add_dry_run(parser)


def run(options: Namespace) -> int:
    """Grant and report."""
    settings = Settings.from_environment()
    password = _password(options)
    require_usable(settings)
    everybody_may_create = grant_reader(settings, options.role, password=password, dry_run=options.dry_run)
    if options.json:
        print_json(
            {
                "target": settings.target,
                "role": options.role,
                "granted": not options.dry_run,
                "views": [view.removeprefix("public.") for view in READER_VIEWS],
                "functions": READER_FUNCTIONS,
                "everybody_may_create": everybody_may_create,
            }
        )
        return 0
    names = ", ".join(name.removeprefix("public.") for name in (*READER_VIEWS, *READER_FUNCTIONS))
    reads = f"read {names} of {settings.target}, and nothing else"
    if options.dry_run:
        print_line(f'Role "{options.role}" could {reads}. Nothing was changed (--dry-run).')
    else:
        print_line(f'✅ Role "{options.role}" may {reads}')
    if everybody_may_create:
        print_line(EVERYBODY_NOTE, file=sys.stderr)
    return 0


def _password(options: Namespace) -> str | None:
    """The password that the role gets; None if it is not created."""
    if options.password_file and not options.create:
        raise UsageError("--password-file is for --create", hint="Add --create, or leave it out.")
    if not options.create:
        return None
    if options.password_file:
        return read_password_file(options.password_file, "--password-file", f"set {PASSWORD}")
    password = os.environ.get(PASSWORD) or read_env_file(Path(".env"), [PASSWORD]).get(PASSWORD)
    if not password:
        raise RefusedError(
            f'role "{options.role}" needs a password, and {PASSWORD} has none; nothing was changed',
            hint=f"Set {PASSWORD}, or give --password-file.",
        )
    return password
