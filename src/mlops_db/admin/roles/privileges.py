"""Reads who can do what with our objects: by a grant, by a grant to PUBLIC, by a membership, or by an attribute."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from mlops_db.drift.catalogue import OPTION
from mlops_db.drift.declared_roles import ON_SHARDS, OWNERSHIP, Privilege, describe, find_kind
from mlops_db.errors import RefusedError, alembic
from mlops_db.project import SCHEMAS, TABLES, VIEWS
from mlops_db.revisions.gate import find_position
from mlops_db.revisions.tables import VERSION_TABLE
from mlops_db.server.connection import SET_OPTION_SINCE

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
# What a role has by an attribute or by a role of PostgreSQL's, on everything. Members do not inherit an attribute.
_BY_ATTRIBUTE = {
    "rolsuper": "SUPERUSER",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}
# These alone let a role do nothing with our objects, but neither a reader nor a writer needs them.
_ELSEWHERE = {Privilege("CREATEDB", "", ""), Privilege("BYPASSRLS", "", "")}
_BY_BUILT_IN = {
    "pg_read_all_data": "SELECT on everything",
    "pg_write_all_data": "INSERT, UPDATE and DELETE on everything",
    "pg_maintain": "MAINTAIN on everything",
    "pg_read_server_files": "reading files of the server",
    "pg_write_server_files": "writing files of the server",
    "pg_execute_server_program": "running programs on the server",
}
# Only those that a role can become and have something are of interest, which spares asking about each pair of roles.
# SET ROLE gives the privileges that a member does not inherit; USAGE tells which it inherits. From PostgreSQL 16 on, a
# member may be allowed neither. With the ADMIN option it can grant itself the rest.
_ROLES = f"""
    WITH able AS (
        SELECT oid, rolname, CASE WHEN rolsuper THEN ARRAY['SUPERUSER'] ELSE array_remove(ARRAY[{
    ", ".join(f"CASE WHEN {column} THEN '{name}' END" for column, name in _BY_ATTRIBUTE.items())
}], NULL) END AS attributes -- a superuser needs no other
          FROM pg_roles
         WHERE oid = ANY (%(grantees)s::oid[]) OR {" OR ".join(_BY_ATTRIBUTE)}
            OR rolname = ANY (ARRAY{[*_BY_BUILT_IN]})
    )
    SELECT role.oid, role.rolname, role.rolcanlogin, role.rolsuper,
           coalesce((SELECT json_agg(json_build_array(able.oid::bigint, able.rolname, able.attributes, inherits)
                                     ORDER BY able.rolname)
                       FROM able CROSS JOIN LATERAL pg_has_role(role.oid, able.oid, 'USAGE') AS inherits
                      WHERE able.oid = role.oid
                         OR NOT role.rolsuper AND pg_has_role(role.oid, able.oid, 'MEMBER')
                        AND CASE WHEN current_setting('server_version_num')::int < {SET_OPTION_SINCE} THEN true
                            ELSE EXISTS (SELECT FROM pg_roles AS via
                                          WHERE pg_has_role(role.oid, via.oid, 'MEMBER')
                                            AND (pg_has_role(role.oid, via.oid, 'SET')
                                                 AND pg_has_role(via.oid, able.oid, 'USAGE')
                                                 OR pg_has_role(role.oid, via.oid, 'MEMBER WITH ADMIN OPTION')
                                                 AND pg_has_role(via.oid, able.oid, 'MEMBER'))) END), '[]')
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


Way = Literal["own", "inherited", "everybody", "after SET ROLE"]
WITHOUT_SET_ROLE: tuple[Way, ...] = ("own", "inherited", "everybody")


class Ability(NamedTuple):
    """Something that a role can do.

    Attributes:
        privilege: the privilege.
        way: how it comes to it. `after SET ROLE`: it is a member of a role, and does not inherit this from it.
        by: PUBLIC, or the role that it is a member of; empty if it is its own.
    """

    privilege: Privilege
    way: Way
    by: str = ""


class Membership(NamedTuple):
    """That a role can become another one.

    Attributes:
        role: the other one.
        inherits: whether it can do what that can without becoming it.
    """

    role: str
    inherits: bool


class Role(NamedTuple):
    """A role, and what it can do with our objects.

    Attributes:
        oid: its oid, or `PUBLIC`: a role can have that name, too.
        name: its name.
        can_login: whether it may log in.
        is_superuser: whether it is a superuser, who can do everything.
        memberships: the roles with a privilege on our objects that it can become, but for itself.
        abilities: what it can do in any of these ways.
    """

    oid: int
    name: str
    can_login: bool
    is_superuser: bool
    memberships: tuple[Membership, ...]
    abilities: tuple[Ability, ...]

    def privileges(self, *ways: Way) -> list[Privilege]:
        """What it can do in these ways."""
        return [ability.privilege for ability in self.abilities if ability.way in ways]

    @property
    def kind(self) -> Kind | None:
        """What it is without SET ROLE."""
        return find_kind(self.privileges(*WITHOUT_SET_ROLE))

    @property
    def kind_after_set_role(self) -> Kind | None:
        """What it is, or can become."""
        return find_kind(ability.privilege for ability in self.abilities)


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
        abilities = [Ability(privilege, "everybody", EVERYBODY) for privilege in of[PUBLIC]]
        for able, able_name, attributes, inherits in becomes:
            has = [Privilege(attribute, "", "") for attribute in attributes]
            gives = [*_privileges_of(able_name, of[able])]
            if able == oid:
                abilities += [Ability(privilege, "own") for privilege in (*has, *gives)]
                continue
            abilities += [Ability(privilege, "after SET ROLE", able_name) for privilege in has]
            way: Way = "inherited" if inherits else "after SET ROLE"
            abilities += [Ability(privilege, way, able_name) for privilege in gives]
        best: dict[Privilege, Ability] = {}
        for ability in sorted(abilities, key=lambda one: get_args(Way).index(one.way)):
            best.setdefault(ability.privilege, ability)
        memberships = tuple(
            Membership(able_name, inherits)
            for able, able_name, _, inherits in becomes
            if able != oid and able_name != "pg_database_owner"
        )
        shown = sorted(best.values(), key=lambda one: one.way == "everybody")  # which is of the least interest, last
        roles.append(Role(oid, name, can_login, is_superuser, memberships, tuple(shown)))
    return roles


def _privileges_of(name: str, found: Sequence[Privilege]) -> Iterator[Privilege]:
    """What this role gives to itself and to who inherits from it. Who owns the database is told that alone."""
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
        and not (ability.way == "everybody" and ability.privilege in usual)
        and not (kind is None and ability.privilege in _ELSEWHERE)
    ]


def require_tables(cursor: SafeCursor, settings: Settings) -> None:
    """Refuse a database without our tables, whose revision may be any.

    Raises:
        MlopsDbError: it is another tool's, as `gate.find_position` says.
        RefusedError: it has none of our tables.
    """
    cursor.execute(
        f"""
        SELECT relname FROM pg_class
         WHERE relnamespace = to_regnamespace('public') AND relname = ANY (ARRAY{[*TABLES]})
        """
    )
    found = len(cursor.fetchall())
    if found < len(TABLES):
        find_position(cursor, settings.target)
    if not found:
        raise RefusedError(
            f"{settings.target} has no tables yet, so there is nothing to have a privilege on",
            hint=f"Run `{alembic('upgrade head')}` first.",
        )


def describe_abilities(abilities: Iterable[Ability]) -> str:
    """What a role can do in words, with the way, such as `INSERT on model_versions (by ops)`; the first of it."""
    ways: dict[tuple[Way, str], list[Privilege]] = {}
    for ability in abilities:
        ways.setdefault((ability.way, ability.by), []).append(ability.privilege)
    found = []
    for (way, by), held in ways.items():
        how = f" (by {by}{', after SET ROLE' if way == 'after SET ROLE' else ''})" if by else ""
        found += [f"{text}{how}" for text in describe(held)]
    return ", ".join([*found[:MAX_SHOWN], *([f"and {len(found) - MAX_SHOWN} more"] if found[MAX_SHOWN:] else [])])


def abilities_for_json(abilities: Iterable[Ability]) -> list[dict[str, str | None]]:
    """All that a role can do, for `--json`."""
    return [
        {"privilege": text, "by": ability.by or None} for ability in abilities for text in describe([ability.privilege])
    ]
