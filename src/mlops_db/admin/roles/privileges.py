"""Reads who can do what with our objects: by a grant, by a grant to PUBLIC, by a membership, or by an attribute."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from mlops_db.drift.catalogue import OPTION
from mlops_db.drift.declared_roles import ON_SHARDS, OWNERSHIP, Privilege, describe
from mlops_db.errors import RefusedError, alembic
from mlops_db.project import SCHEMAS, TABLES, VIEWS
from mlops_db.revisions.tables import VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlops_db.drift.declared_roles import Kind
    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

PUBLIC = 0  # the oid of PUBLIC in a list of grants
EVERYBODY = "PUBLIC"
LATER = "later"  # the kind of a privilege on what later revisions create, such as `tables`
MAX_SHOWN = 12

_NAME = "quote_ident(n.nspname) || '.' || quote_ident({}.{})"
# Whoever owns the tables creates what comes later, with its default privileges. Everybody may run new functions anyway.
_DEFAULTS = f"""
    pg_default_acl AS d
      LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace
      JOIN (VALUES ('r', 'tables'), ('S', 'sequences'), ('f', 'functions'), ('n', 'schemas')) AS type (letter, name)
           ON type.letter = d.defaclobjtype::text
     CROSS JOIN LATERAL aclexplode(d.defaclacl) AS acl
     WHERE (n.nspname IS NULL OR n.nspname = ANY (ARRAY{[*SCHEMAS]}))
       AND d.defaclrole IN (SELECT c.relowner FROM pg_class AS c
                             WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY (ARRAY{[*TABLES]}))
       AND acl.grantee <> d.defaclrole AND NOT (acl.grantee = {PUBLIC} AND type.name = 'functions')
"""
_LATER_REVOKES = f"""
    SELECT DISTINCT format('ALTER DEFAULT PRIVILEGES FOR ROLE %%I%%s REVOKE ALL ON %%s FROM %%s;',
                           pg_get_userbyid(d.defaclrole), ' IN SCHEMA ' || quote_ident(n.nspname), upper(type.name),
                           coalesce(quote_ident(%(role)s), 'PUBLIC'))
      FROM {_DEFAULTS}
       AND acl.grantee = coalesce((SELECT oid FROM pg_roles WHERE rolname = %(role)s), {PUBLIC})
     ORDER BY 1
"""
# Tables and sequences in public may be those of others; in our other schemas, everything is ours. What Citus keeps in
# our schemas is its own, and shards are hidden. The owner's own privileges are left out, and so is what everybody may
# do in every database.
_GRANTS = f"""
    WITH ours (kind, name, owner, place, acl) AS (
        SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, {_NAME.format("c", "relname")}, c.relowner,
               g.place, g.acl
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL (
                   SELECT '',
                          coalesce(c.relacl, acldefault(translate(c.relkind, 'pvmfS', 'rrrrs')::"char", c.relowner))
                    UNION ALL
                   SELECT quote_ident(a.attname), a.attacl FROM pg_attribute AS a
                    WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL
               ) AS g (place, acl)
         WHERE n.nspname = ANY (ARRAY{[*SCHEMAS]}) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
           AND (n.nspname <> 'public'
                OR c.relname = ANY (ARRAY{
    [*TABLES, *VIEWS, *(f"{table}_id_seq" for table in TABLES), VERSION_TABLE.partition(".")[2]]
}))
           AND NOT EXISTS (SELECT FROM pg_depend AS d
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
         UNION ALL
        SELECT 'function', {_NAME.format("p", "proname")}, p.proowner, '',
               coalesce(p.proacl, acldefault('f', p.proowner))
          FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
         WHERE n.nspname IN ('mlops_internal', 'reporting')
           AND NOT EXISTS (SELECT FROM pg_depend AS d
                            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
         UNION ALL
        SELECT 'schema', quote_ident(n.nspname), n.nspowner, '', coalesce(n.nspacl, acldefault('n', n.nspowner))
          FROM pg_namespace AS n WHERE n.nspname = ANY (ARRAY{[*SCHEMAS]})
         UNION ALL
        SELECT 'database', quote_ident(b.datname), b.datdba, '', coalesce(b.datacl, acldefault('d', b.datdba))
          FROM pg_database AS b WHERE b.datname = current_database()
    )
    SELECT acl.grantee, held.privilege, kind, name, place, pg_get_userbyid(acl.grantor)
      FROM ours CROSS JOIN LATERAL aclexplode(acl) AS acl
      JOIN LATERAL (VALUES (acl.privilege_type, true), (acl.privilege_type || '{OPTION}', acl.is_grantable)
           ) AS held (privilege, is_there) ON held.is_there
     WHERE acl.grantee <> owner AND NOT (kind = 'database' AND acl.privilege_type <> 'CREATE')
     UNION ALL
    SELECT DISTINCT owner, '{OWNERSHIP}', kind, name, '', '' FROM ours
     UNION ALL
    SELECT acl.grantee, acl.privilege_type, '{LATER}', type.name, '', pg_get_userbyid(acl.grantor) FROM {_DEFAULTS}
     ORDER BY 3, 4, 2, 5
"""
# What a role has by an attribute or by a role of PostgreSQL's, on everything.
_BY_ATTRIBUTE = {"rolsuper": "SUPERUSER", "rolcreaterole": "CREATEROLE", "rolreplication": "REPLICATION"}
_BY_BUILT_IN = {
    "pg_read_all_data": "SELECT on everything",
    "pg_write_all_data": "INSERT, UPDATE and DELETE on everything",
    "pg_maintain": "MAINTAIN on everything",
    "pg_read_server_files": "reading files of the server",
    "pg_write_server_files": "writing files of the server",
    "pg_execute_server_program": "running programs on the server",
}
# Only those that a role can become and have something are of interest, which spares asking about each pair of roles.
# MEMBER, because SET ROLE gives the privileges of a role that does not pass them on by itself.
_ROLES = f"""
    WITH able AS (
        SELECT oid, rolname, array_remove(ARRAY[{
    ", ".join(f"CASE WHEN {column} THEN '{name}' END" for column, name in _BY_ATTRIBUTE.items())
}], NULL) AS attributes
          FROM pg_roles
         WHERE oid = ANY (%(grantees)s::oid[]) OR rolsuper OR rolcreaterole OR rolreplication
            OR rolname = ANY (ARRAY{[*_BY_BUILT_IN]})
    )
    SELECT role.oid, role.rolname, role.rolcanlogin, role.rolsuper,
           coalesce((SELECT json_agg(json_build_array(able.oid::bigint, able.rolname, able.attributes)
                                     ORDER BY able.oid <> role.oid, able.rolname)
                       FROM able WHERE able.oid = role.oid
                                    OR NOT role.rolsuper AND pg_has_role(role.oid, able.oid, 'MEMBER')), '[]')
      FROM pg_roles AS role
     WHERE %(role)s::text IS NULL OR role.rolname = %(role)s
     ORDER BY role.rolname
"""


class Grant(NamedTuple):
    """A privilege of a role or of PUBLIC, as the database has it.

    Attributes:
        grantee: the oid of the role, or `PUBLIC`.
        privilege: the privilege; `ownership` of an object counts as one.
        grantor: who granted it.
    """

    grantee: int
    privilege: Privilege
    grantor: str


class Ability(NamedTuple):
    """Something that a role can do.

    Attributes:
        privilege: the privilege.
        by: PUBLIC, or the role that it is a member of; empty if it is its own.
    """

    privilege: Privilege
    by: str


class Role(NamedTuple):
    """A role, and what it can do with our objects.

    Attributes:
        name: its name.
        can_login: whether it may log in.
        is_superuser: whether it is a superuser, who can do everything.
        memberships: the roles with a privilege on our objects that it can become, but for itself.
        abilities: what it can do in any of these ways.
    """

    name: str
    can_login: bool
    is_superuser: bool
    memberships: tuple[str, ...]
    abilities: tuple[Ability, ...]

    @property
    def privileges(self) -> list[Privilege]:
        """What it can do, in whichever way."""
        return [ability.privilege for ability in self.abilities]

    @property
    def own(self) -> list[Privilege]:
        """What it can do by itself, without PUBLIC and without memberships."""
        return [ability.privilege for ability in self.abilities if not ability.by]

    @property
    def of_everybody(self) -> list[Privilege]:
        """What it can do because everybody can."""
        return [ability.privilege for ability in self.abilities if ability.by == EVERYBODY]


def read_grants(cursor: SafeCursor) -> list[Grant]:
    """The privileges on our objects. Any role may read them."""
    cursor.execute(_GRANTS)
    return [
        Grant(grantee, Privilege(name, kind, thing, column), grantor)
        for grantee, name, kind, thing, column, grantor in cursor.fetchall()
    ]


def list_later_revokes(cursor: SafeCursor, role: str | None) -> list[str]:
    """The statements that take from a role, or from PUBLIC for None, its privileges on what later revisions create."""
    cursor.execute(_LATER_REVOKES, {"role": role})
    return [statement for (statement,) in cursor.fetchall()]


def read_roles(cursor: SafeCursor, grants: Sequence[Grant], role: str | None = None) -> list[Role]:
    """All roles of the server with what they can do, or one of them; none if there is no such role."""
    of: defaultdict[int, list[Privilege]] = defaultdict(list)
    for grant in grants:
        of[grant.grantee].append(grant.privilege)
    cursor.execute(_ROLES, {"grantees": sorted(of), "role": role})
    roles = []
    for oid, name, can_login, is_superuser, becomes in cursor.fetchall():
        abilities: dict[Privilege, Ability] = {}
        for able, able_name, attributes in becomes:
            by = "" if able == oid else able_name
            for privilege in _privileges_of(able_name, attributes, of[able]):
                abilities.setdefault(privilege, Ability(privilege, by))
        for privilege in of[PUBLIC]:
            abilities.setdefault(privilege, Ability(privilege, EVERYBODY))
        memberships = tuple(
            able_name for able, able_name, _ in becomes if able != oid and able_name != "pg_database_owner"
        )
        roles.append(Role(name, can_login, is_superuser, memberships, tuple(abilities.values())))
    return roles


def _privileges_of(name: str, attributes: Sequence[str], found: Sequence[Privilege]) -> Iterator[Privilege]:
    """What this role gives to itself and to its members. Who owns the database is told that alone."""
    for attribute in attributes[:1]:
        yield Privilege(attribute, "", "")
    if name in _BY_BUILT_IN:
        yield Privilege(_BY_BUILT_IN[name], "", "")
    owned = [privilege for privilege in found if privilege.name == OWNERSHIP]
    owns_all = [privilege for privilege in owned if privilege.kind == "database"]
    yield from owns_all or owned
    yield from (privilege for privilege in found if privilege.name != OWNERSHIP)


def find_beyond(role: Role, kind: Kind | None, *, shards_here: bool) -> list[Ability]:
    """What a role can do beyond its kind, or beyond nothing.

    That everybody may create in schema public is left out: that is the default before PostgreSQL 15, only a superuser
    can revoke it, and commands tell it apart.

    Args:
        role: the role.
        kind: its kind; None if it is of none.
        shards_here: whether the coordinator of Citus has shards, which a reader reads in mlops_internal.
    """
    usual = {Privilege("CREATE", "schema", "public"), Privilege("USAGE", "schema", "public")}
    allowed = {ON_SHARDS} if kind is not None and shards_here else set()
    return [
        ability
        for ability in role.abilities
        if not (kind is not None and kind.allows(ability.privilege))
        and ability.privilege not in allowed
        and not (ability.by == EVERYBODY and ability.privilege in usual)
    ]


def no_tables(settings: Settings) -> RefusedError:
    """The error for a database without our tables."""
    return RefusedError(
        f"{settings.target} has no tables yet, so there is nothing to have a privilege on",
        hint=f"Run `{alembic('upgrade head')}` first.",
    )


def describe_abilities(abilities: Iterable[Ability], limit: int = MAX_SHOWN) -> list[str]:
    """What a role can do in words, with the way, such as `INSERT on model_versions (by ops)`; at most `limit` of it."""
    ways: dict[str, list[Privilege]] = {}
    for ability in abilities:
        ways.setdefault(ability.by, []).append(ability.privilege)
    found = [f"{text}{f' (by {by})' if by else ''}" for by, held in ways.items() for text in describe(held)]
    return found[:limit] if len(found) <= limit else [*found[:limit], f"and {len(found) - limit} more"]
