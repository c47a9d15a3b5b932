"""Show who can do what in the database: the owner, writers, readers, and others with a privilege on our objects.

A writer or a reader that lacks something needs `mlops-db grant-writer` or `grant-reader` again, for example after a
revision that adds a table. Any role that can connect may run this.
"""

from argparse import ArgumentParser, Namespace

from mlops_db.admin.roles.listing import ListedRole, list_roles
from mlops_db.admin.roles.privileges import EVERYBODY, PUBLIC, abilities_for_json, describe_abilities
from mlops_db.cli.output import Styled, print_json, print_line, print_table
from mlops_db.cli.parser import add_json
from mlops_db.drift.declared_roles import describe
from mlops_db.errors import printable
from mlops_db.server.failures import quoted
from mlops_db.settings import Settings

COLUMNS = ("role", "kind", "login", "notes")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)


def run(options: Namespace) -> int:
    """Print the roles."""
    settings = Settings.from_environment()
    listing = list_roles(settings)
    if options.json:
        print_json(
            {
                "target": settings.target,
                "superusers": listing.superusers,
                "roles": [_for_json(role) for role in listing.roles],
                "unseen": listing.unseen,
            }
        )
        return 0
    print_table(COLUMNS, [_row(role) for role in listing.roles], wrapped=("notes",))
    print_line()
    print_line(printable(f"superusers can do everything: {', '.join(listing.superusers)}"))
    if listing.unseen:
        print_line(f"note: {listing.unseen}")
    return 0


def _row(role: ListedRole) -> tuple[str, ...]:
    notes = []
    if role.role.memberships:
        groups = [f"{one.role}{'' if one.inherits else ' (not inherited)'}" for one in role.role.memberships]
        notes.append(f"member of {', '.join(groups)}")
    if role.after_set_role:
        notes.append(f"a {role.after_set_role} only after SET ROLE")
    if role.lacks:
        notes.append(f"lacks {', '.join(describe(role.lacks))}")
    if role.beyond:
        has = "has" if role.kind == "other" else "has more:"
        notes.append(f"{has} {describe_abilities(role.beyond)}")
    style = "yellow" if role.after_set_role or role.lacks or role.beyond else ""
    name = role.role.name
    return (
        printable(quoted(name) if name == EVERYBODY and role.role.oid != PUBLIC else name),
        role.kind,
        "yes" if role.role.can_login else "no",
        Styled(printable("; ".join(notes)), style),
    )


def _for_json(role: ListedRole) -> dict[str, object]:
    return {
        "name": role.role.name,
        "everybody": role.role.oid == PUBLIC,
        "kind": role.kind,
        "login": role.role.can_login,
        "member_of": [one.role for one in role.role.memberships],
        "not_inherited": [one.role for one in role.role.memberships if not one.inherits],
        "after_set_role": role.after_set_role,
        "lacks": describe(role.lacks),
        "beyond": abilities_for_json(role.beyond),
    }
