"""Show who can do what in the database: the owner, writers, readers, and others with a privilege on our objects.

A writer or a reader that lacks something needs `mlops-db grant-writer` or `grant-reader` again, for example after a
revision that adds a table. Any role that can connect may run this.
"""

from argparse import ArgumentParser, Namespace

from mlops_db.admin.roles.listing import ListedRole, list_roles
from mlops_db.admin.roles.privileges import describe_abilities
from mlops_db.cli.output import Styled, print_json, print_line, print_table
from mlops_db.cli.parser import add_json
from mlops_db.drift.declared_roles import describe
from mlops_db.errors import printable
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
    if role.memberships:
        notes.append(f"member of {', '.join(role.memberships)}")
    if role.lacks:
        notes.append(f"lacks {', '.join(describe(role.lacks))}")
    if role.beyond:
        has = "has" if role.kind == "other" else "has more:"
        notes.append(f"{has} {', '.join(describe_abilities(role.beyond))}")
    style = "yellow" if role.lacks or role.beyond else ""
    return (
        printable(role.name),
        role.kind,
        "yes" if role.can_login else "no",
        Styled(printable("; ".join(notes)), style),
    )


def _for_json(role: ListedRole) -> dict[str, object]:
    return {
        "name": role.name,
        "kind": role.kind,
        "login": role.can_login,
        "member_of": role.memberships,
        "lacks": describe(role.lacks),
        "beyond": [
            {"privilege": text, "by": ability.by or None}
            for ability in role.beyond
            for text in describe([ability.privilege])
        ],
    }
