"""Lists who can do what: the owner, writers, readers, and all others with a privilege on our objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlops_db.admin.cluster.shard_grants import has_shards_here
from mlops_db.admin.roles.privileges import (
    EVERYBODY,
    PUBLIC,
    WITHOUT_SET_ROLE,
    Ability,
    Role,
    find_beyond,
    read_grants,
    read_roles,
    require_tables,
)
from mlops_db.drift.declared_roles import OWNERSHIP, Privilege
from mlops_db.server.citus import has_citus, list_distributed_tables
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlops_db.settings import Settings


@dataclass(frozen=True)
class ListedRole:
    """A role, and what it can do in the database.

    Attributes:
        role: the role, or everybody.
        kind: what it is without SET ROLE. An owner owns the database or one of our objects, or can become such a role.
            `other` has some privilege, and is of no kind.
        after_set_role: the kind that it can become, but does not inherit; None if there is no such kind.
        lacks: what it needs for its kind, and does not have, such as on a table of a later revision.
        beyond: what it can do beyond its kind, and after SET ROLE beyond the kind that it can become; for an owner,
            nothing is listed.
    """

    role: Role
    kind: Literal["owner", "writer", "reader", "other"]
    after_set_role: str | None = None
    lacks: tuple[Privilege, ...] = ()
    beyond: tuple[Ability, ...] = ()


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
        MlopsDbError: it is another tool's.
    """
    with open_cursor(settings, readonly=True, isolation_level="REPEATABLE READ") as cursor:
        require_tables(cursor, settings)
        grants = read_grants(cursor)
        roles = read_roles(cursor, grants)
        on_citus = has_citus(cursor)
        shards_here = on_citus and has_shards_here(cursor)
        on_nodes = on_citus and bool(list_distributed_tables(cursor))
    objects = {grant.privilege.object for grant in grants}
    usual = Privilege("USAGE", "schema", "public")
    of_everybody = [grant.privilege for grant in grants if grant.grantee == PUBLIC and grant.privilege != usual]
    everybody = Role(PUBLIC, EVERYBODY, False, False, (), tuple(Ability(one, "own") for one in of_everybody))  # noqa: FBT003
    listed = [
        one
        for role in (*roles, everybody)
        if not role.is_superuser and (one := _listed(role, objects, shards_here=shards_here))
    ]
    owners = {role for role in roles if role.is_superuser and _owns(role)}
    listed += [ListedRole(role, "owner") for role in owners]
    return Listing(
        tuple(sorted(listed, key=lambda one: (_KINDS.index(one.kind), one.role.oid == PUBLIC, one.role.name))),
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
        return ListedRole(role, "owner")
    if role.oid != PUBLIC and all(ability.way == "everybody" for ability in role.abilities):
        return None
    if role.name.startswith("pg_") and not any(privilege.object for privilege in role.privileges("own")):
        return None
    kind, can_become = role.kind, role.kind_after_set_role
    further = find_beyond(role, can_become, shards_here=shards_here)
    beyond = tuple(
        ability
        for ability in find_beyond(role, kind, shards_here=shards_here)
        if ability.way != "after SET ROLE" or ability in further
    )
    if can_become is None and not beyond:
        return None
    lacks = kind.lacks(role.privileges(*WITHOUT_SET_ROLE)) if kind else []
    return ListedRole(
        role,
        kind.name if kind else "other",
        can_become.name if can_become and can_become is not kind else None,
        tuple(privilege for privilege in lacks if privilege.object in objects),
        beyond,
    )


def _owns(role: Role) -> bool:
    """Whether it owns our objects, or can become who does."""
    return any(ability.privilege.name == OWNERSHIP for ability in role.abilities)
