"""Lists who can do what: the owner, writers, readers, and all others with a privilege on our objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlops_db.admin.cluster.shard_grants import has_shards_here
from mlops_db.admin.roles.privileges import (
    EVERYBODY,
    PUBLIC,
    Ability,
    Role,
    find_beyond,
    no_tables,
    read_grants,
    read_roles,
)
from mlops_db.drift.declared_roles import OWNERSHIP, Privilege, find_kind
from mlops_db.server.citus import has_citus, list_distributed_tables
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mlops_db.admin.roles.privileges import Grant
    from mlops_db.settings import Settings


@dataclass(frozen=True)
class ListedRole:
    """A role, and what it can do in the database.

    Attributes:
        name: its name; PUBLIC is everybody.
        kind: what it is. An owner owns the database or one of our objects, or can become such a role. `other` has some
            privilege, and is of no kind.
        can_login: whether it may log in.
        memberships: the roles with a privilege on our objects that it can become.
        lacks: what it needs for its kind, and does not have, such as on a table of a later revision.
        beyond: what it can do beyond its kind; for an owner, nothing is listed.
    """

    name: str
    kind: Literal["owner", "writer", "reader", "other"]
    can_login: bool
    memberships: tuple[str, ...]
    lacks: tuple[Privilege, ...]
    beyond: tuple[Ability, ...]


@dataclass(frozen=True)
class Listing:
    """The roles of a database.

    Attributes:
        roles: owners, writers, readers and others, by kind and name. PUBLIC is among the others, if it can do more than
            it can in every database.
        superusers: who can do everything.
        unseen: what this listing cannot show, in a sentence; None if it shows everything.
    """

    roles: tuple[ListedRole, ...]
    superusers: tuple[str, ...]
    unseen: str | None


_KINDS = ("owner", "writer", "reader", "other")


def list_roles(settings: Settings) -> Listing:
    """List who can do what with our objects. Any role that can connect may ask; changes nothing.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: the database has none of our tables.
    """
    with open_cursor(settings, readonly=True, isolation_level="REPEATABLE READ") as cursor:
        grants = read_grants(cursor)
        roles = read_roles(cursor, grants)
        on_citus = has_citus(cursor)
        shards_here = on_citus and has_shards_here(cursor)
        on_nodes = on_citus and bool(list_distributed_tables(cursor))
    objects = {grant.privilege.object for grant in grants}
    if "public.model_versions" not in objects:
        raise no_tables(settings)
    everybody = Role(EVERYBODY, False, False, (), _abilities_of_everybody(grants))  # noqa: FBT003
    listed = [
        one
        for role in (*roles, everybody)
        if not role.is_superuser and (one := _listed(role, objects, shards_here=shards_here))
    ]
    owners = {role for role in roles if role.is_superuser and _owns(role)}
    listed += [ListedRole(role.name, "owner", role.can_login, (), (), ()) for role in owners]
    return Listing(
        tuple(sorted(listed, key=lambda one: (_KINDS.index(one.kind), one.name == EVERYBODY, one.name))),
        tuple(role.name for role in roles if role.is_superuser),
        "Grants on the nodes of Citus are not shown; `mlops-db distribute` renews those of readers."
        if on_nodes
        else None,
    )


def _listed(role: Role, objects: Collection[str], *, shards_here: bool) -> ListedRole | None:
    """The role with its kind; None if it has nothing but what everybody has."""
    if role.name == "pg_database_owner":  # which is its one member
        return None
    if _owns(role):
        return ListedRole(role.name, "owner", role.can_login, role.memberships, (), ())
    kind = find_kind(role.privileges)
    beyond = find_beyond(role, kind, shards_here=shards_here)
    if role.name != EVERYBODY and all(ability.by == EVERYBODY for ability in role.abilities):
        return None
    if role.name.startswith("pg_") and not any(privilege.object for privilege in role.own):
        return None
    if kind is None:
        return ListedRole(role.name, "other", role.can_login, role.memberships, (), tuple(beyond)) if beyond else None
    lacks = [privilege for privilege in kind.lacks(role.privileges) if privilege.object in objects]
    return ListedRole(
        role.name,
        kind.name,  # type: ignore[arg-type]
        role.can_login,
        role.memberships,
        tuple(lacks),
        tuple(beyond),
    )


def _owns(role: Role) -> bool:
    """Whether it owns our objects, or can become who does."""
    return any(ability.privilege.name == OWNERSHIP for ability in role.abilities)


def _abilities_of_everybody(grants: Sequence[Grant]) -> tuple[Ability, ...]:
    usual = Privilege("USAGE", "schema", "public")
    return tuple(
        Ability(grant.privilege, "") for grant in grants if grant.grantee == PUBLIC and grant.privilege != usual
    )
