"""What `mlops-db grant-reader` and `mlops-db grant-writer` share: their options, and what they print."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import add_dry_run, add_json
from mlops_db.env_file import read_env_file
from mlops_db.errors import RefusedError, UsageError, printable
from mlops_db.settings import Settings, read_password_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlops_db.admin.roles.granting import Revoked
    from mlops_db.drift.declared_roles import Kind


def add_granting_arguments(parser: ArgumentParser, variable: str) -> None:
    """Add the options of both commands; `variable` has the password of a role that is created."""
    parser.add_argument(
        "role", help="an existing role: a login, or one that is granted to logins that inherit; or see --create"
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--create",
        action="store_true",
        help=f"create the role if it is missing, and let it log in with the password in {variable}, each time anew",
    )
    either.add_argument(
        "--revoke", action="store_true", help="take back what this command grants, and leave other grants alone"
    )
    parser.add_argument("--password-file", type=Path, metavar="FILE", help=f"with --create: instead of {variable}")
    add_json(parser)
    add_dry_run(parser)


def run_granting(options: Namespace, kind: "Kind", variable: str, *, may: str, names: dict[str, object]) -> int:
    """Grant or revoke, and report.

    Args:
        options: the command line.
        kind: what the role becomes.
        variable: the environment variable with the password of a role that is created.
        may: what the role may do then, in words.
        names: what `--json` says of that, beside the privileges.
    """
    from mlops_db.admin.roles.granting import grant, revoke  # noqa: PLC0415  (the help does without psycopg2)
    from mlops_db.admin.status import require_usable  # noqa: PLC0415
    from mlops_db.drift.declared_roles import describe  # noqa: PLC0415
    from mlops_db.server.guests import EVERYBODY_NOTE  # noqa: PLC0415

    settings = Settings.from_environment()
    password = _password(options, variable)
    if options.revoke:  # which does not depend on the revision
        _report_revoked(options, kind, settings, revoke(settings, kind, options.role, dry_run=options.dry_run))
        return 0
    require_usable(settings)
    granted = grant(settings, kind, options.role, password=password, dry_run=options.dry_run)
    if options.json:
        print_json(
            {
                "target": settings.target,
                "role": options.role,
                "granted": not options.dry_run,
                "statements": granted.statements,
                "privileges": describe(kind.privileges),
                **names,
                "everybody_may_create": granted.everybody_may_create,
            }
        )
        return 0
    role = printable(f'Role "{options.role}"')
    may = f"{may} of {settings.target}, and nothing else"
    if options.dry_run:
        _print_statements(granted.statements)
        print_line(f"{role} could {may}. Nothing was changed (--dry-run).")
    else:
        print_line(f"✅ {role} may {may}")
    if granted.everybody_may_create:
        print_line(EVERYBODY_NOTE, file=sys.stderr)
    return 0


def _report_revoked(options: Namespace, kind: "Kind", settings: Settings, revoked: "Revoked") -> None:
    from mlops_db.admin.roles.privileges import abilities_for_json, describe_abilities  # noqa: PLC0415
    from mlops_db.drift.declared_roles import describe  # noqa: PLC0415

    taken = [*describe(revoked.privileges), *(["CONNECT on the database"] if revoked.connect else [])]
    foreign = [
        {"privilege": text, "by": grant.grantor} for grant in revoked.foreign for text in describe([grant.privilege])
    ]
    if options.json:
        print_json(
            {
                "target": settings.target,
                "role": options.role,
                "revoked": bool(taken) and not options.dry_run,
                "statements": revoked.statements,
                "privileges": taken,
                "granted_by_others": foreign,
                "still": kind.name if revoked.still else None,
                "left": abilities_for_json(revoked.left),
            }
        )
        return
    role = printable(f'Role "{options.role}"')
    count = f"{len(taken)} privilege{'' if len(taken) == 1 else 's'}"
    if not taken and not foreign:
        print_line(f"{role} has no grant of a {kind.name} of {settings.target}. Nothing was changed.")
    elif not taken:
        lost = "would lose" if options.dry_run else "lost"
        print_line(f"{role} {lost} nothing on {settings.target}: others have granted it the same")
    elif options.dry_run:
        _print_statements(revoked.statements)
        print_line(f"{role} would lose {count} on {settings.target}. Nothing was changed (--dry-run).")
    elif revoked.still:
        print_line(f"{role} lost {count} on {settings.target}, and is still a {kind.name}")
    else:
        print_line(f"✅ {role} is no {kind.name} of {settings.target} any more: it lost {count}")
    for one in foreign:
        print_line(printable(f"note: {one['by']} granted it {one['privilege']}, and only {one['by']} can revoke that"))
    if revoked.through:
        print_line(
            printable(
                f"It {'would still be' if options.dry_run else 'is still'} a {kind.name} through "
                f"{', '.join(revoked.through)}: {' '.join(revoked.through.values())}"
            )
        )
    if revoked.left:
        print_line(printable(f"It still has {describe_abilities(revoked.left)}"))


def _print_statements(statements: "Sequence[str]") -> None:
    for statement in statements:
        print_line(printable(statement))


def _password(options: Namespace, variable: str) -> str | None:
    """The password that the role gets; None if it is not created."""
    if options.password_file and not options.create:
        raise UsageError("--password-file is for --create", hint="Add --create, or leave it out.")
    if not options.create:
        return None
    if options.password_file:
        return read_password_file(options.password_file, "--password-file", f"set {variable}")
    password = os.environ.get(variable) or read_env_file(Path(".env"), [variable]).get(variable)
    if not password:
        raise RefusedError(
            f'role "{options.role}" needs a password, and {variable} has none; nothing was changed',
            hint=f"Set {variable}, or give --password-file.",
        )
    return password
