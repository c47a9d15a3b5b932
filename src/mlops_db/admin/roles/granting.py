"""Grants a role exactly what a reader or a writer needs, and takes it back."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import psycopg2
from psycopg2 import sql

from mlops_db.admin.cluster.layout import DISTRIBUTED
from mlops_db.admin.cluster.shard_grants import (
    grant_on_shards,
    has_shards_here,
    refuse_unknown_role,
    revoke_on_shards,
)
from mlops_db.admin.roles.login import make_login, revoke_connect
from mlops_db.admin.roles.privileges import (
    LATER,
    WITHOUT_SET_ROLE,
    Ability,
    describe_abilities,
    find_beyond,
    list_later_revokes,
    read_grants,
    read_roles,
    require_tables,
)
from mlops_db.drift.catalogue import OPTION
from mlops_db.drift.declared_roles import ON_SHARDS, OWNERSHIP, READER, WRITER, Kind, Privilege, describe, find_kind
from mlops_db.errors import NotPermittedError, RefusedError
from mlops_db.project import REPORTING_FUNCTIONS
from mlops_db.revisions.tables import RUNNING_CODE_TABLE
from mlops_db.server.advisory import RUN_LOCK, select_holders
from mlops_db.server.citus import has_citus
from mlops_db.server.connection import open_cursor
from mlops_db.server.failures import first_line
from mlops_db.server.guests import EVERYBODY_MAY_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlops_db.admin.roles.privileges import Grant, Role
    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

# As PostgreSQL spells them: a role can be named "None".
_BUILT_IN = ("", "none", "current_user", "current_role", "session_user")
_FUNCTIONS = {f"reporting.{function.partition('(')[0]}": f"reporting.{function}" for function in REPORTING_FUNCTIONS}

_OWNS_ALL = f"""
    SELECT bool_and(pg_has_role(c.relowner, 'USAGE'))
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = ANY (ARRAY{
    [privilege.object for privilege in WRITER.privileges if privilege.kind == "table"]
})
"""
# A membership may be indirect: this finds the roles to leave.
_WAYS = """
    SELECT DISTINCT direct.rolname
      FROM pg_auth_members AS m
      JOIN pg_roles AS direct ON direct.oid = m.roleid
      JOIN pg_roles AS role ON role.oid = m.member
     WHERE role.rolname = %s AND pg_has_role(direct.oid, %s::name, 'MEMBER')
"""
_POLL_S = 0.1


class Granted(NamedTuple):
    """What was granted to a role.

    Attributes:
        statements: the GRANT statements, without those for the nodes of Citus.
        everybody_may_create: whether everybody, and so this role, may create tables in schema public. That is the
            default before PostgreSQL 15, and only a superuser can revoke it.
    """

    statements: tuple[str, ...]
    everybody_may_create: bool


class Revoked(NamedTuple):
    """What a role lost, and what it has left.

    Attributes:
        statements: the REVOKE statements, without those for the nodes of Citus.
        privileges: what was taken back.
        connect: whether CONNECT on the database was taken back, too.
        foreign: the grants of the same privileges that others have made, such as the owner of schema public; they stay.
        still: whether it is still of that kind: through other roles, everybody, or what others have granted it.
        through: the roles that make it so, each with the statement that ends it.
        left: what it can still do with our objects.
    """

    statements: tuple[str, ...]
    privileges: tuple[Privilege, ...]
    connect: bool
    foreign: tuple[Grant, ...]
    still: bool
    through: dict[str, str]
    left: tuple[Ability, ...]


def grant(settings: Settings, kind: Kind, role: str, *, password: str | None = None, dry_run: bool = False) -> Granted:
    """Grant a role what its kind needs, in one transaction; refuse it if it can do more than that.

    Migration runs grant it again on what later revisions replace. On Citus the nodes that have shards commit what a
    reader needs there afterwards; for a worker that is added later, `distribute` grants it. What a writer needs there,
    Citus itself grants on the nodes.

    Args:
        settings: where the database is; the role that connects owns the tables and views.
        kind: `READER` or `WRITER`.
        role: name of the role, as PostgreSQL stores it: a login, or one that is granted to logins that inherit.
        password: let the role log in with it, and create the role if it is missing; None for a role that exists.
        dry_run: grant, check and roll back.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: there is no such role, it is built in, or it can already do more than its kind; nothing was
            changed. Or a worker lacks it, refused, or does not answer. Or a migration run goes on for too long.
        NotPermittedError: the role in force does not own the tables and views, or may not create roles.
    """
    _refuse_everybody(role)
    with open_cursor(settings) as cursor:
        may_create = bool(cursor.value(f"SELECT {EVERYBODY_MAY_CREATE}"))
        on_citus = has_citus(cursor)
        shards_here = on_citus and has_shards_here(cursor)
        if on_citus and cursor.value("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", (role,)):
            refuse_unknown_role(cursor, role)
        _wait_for_others(cursor, settings)
        if password is not None and not _is_built_in(role):
            make_login(cursor, role, password)
        _require_owner(cursor, settings)
        before = _require_role(cursor, role)
        if kind is READER and find_kind(before.privileges("own")) is WRITER:
            raise RefusedError(
                f'role "{role}" is a writer, which reads all that a reader does; nothing was changed',
                hint=f"To make it a reader, run `mlops-db grant-writer {shlex.quote(role)} --revoke` first.",
            )
        wanted = [privilege for privilege in kind.privileges if _is_there(cursor, privilege)]
        statements = [_statement(cursor, "GRANT {} TO {};", privilege, role) for privilege in wanted]
        for statement in statements:
            cursor.execute(statement)
        (granted,) = read_roles(cursor, read_grants(cursor), role)
        beyond = find_beyond(granted, kind, shards_here=shards_here)
        if beyond:
            raise RefusedError(
                f'role "{role}" can do more than {kind.may}: {describe_abilities(beyond)}; nothing was changed',
                hint=_how_to_end(cursor, before, kind, beyond),
            )
        # GRANT only warns, such as about schema public, which before PostgreSQL 15 a superuser owns.
        if lacking := {*kind.lacks(granted.privileges("own", "everybody"))} & {*wanted}:
            raise _not_permitted(settings, f"may not grant {', '.join(describe(lacking))}")
        if dry_run:
            cursor.connection.rollback()
        elif on_citus and kind is READER:
            cursor.connection.commit()  # the nodes know the role only now
            _wait_for_others(cursor, settings)
            grant_on_shards(cursor, role)
    return Granted(tuple(statements), may_create)


def revoke(settings: Settings, kind: Kind, role: str, *, dry_run: bool = False) -> Revoked:
    """Take back what `grant` grants, in one transaction, and leave all other grants alone; at whichever revision.

    CONNECT on the database goes, too, unless the role or its members may need it for something else. On Citus the
    nodes revoke what is on the shards afterwards.

    Args:
        settings: where the database is; the role that connects owns the tables and views.
        kind: `READER` or `WRITER`.
        role: name of the role, as PostgreSQL stores it.
        dry_run: revoke, look and roll back.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: there are no tables, or no such role; it is a writer, which needs what a reader has; or it has
            granted on to others what it was granted. Nothing was changed. Or a worker refused, or does not answer. Or
            a migration run goes on for too long.
        MlopsDbError: the database is another tool's.
        NotPermittedError: the role in force does not own the tables and views.
    """
    _refuse_everybody(role)
    with open_cursor(settings) as cursor:
        _wait_for_others(cursor, settings)
        _require_owner(cursor, settings)
        before = _require_role(cursor, role, may_be_built_in=True)
        own = before.privileges("own")
        if kind is READER and find_kind(own) is WRITER:
            raise RefusedError(
                f'role "{role}" is a writer, which needs all that a reader has; nothing was changed',
                hint=f"`mlops-db grant-writer {shlex.quote(role)} --revoke` takes back both.",
            )
        held = [privilege for privilege in kind.privileges if privilege in own]
        statements = [_statement(cursor, "REVOKE {} FROM {};", privilege, role) for privilege in held]
        try:
            for statement in statements:
                cursor.execute(statement)
        except psycopg2.errors.DependentObjectsStillExist as error:
            raise RefusedError(
                f'role "{role}" has granted on to others what it was granted: {first_line(str(error))}; nothing was '
                "changed",
                hint=f"`mlops-db roles` shows them. This takes it from them, too: {statement[:-1]} CASCADE;",
            ) from None
        grants = read_grants(cursor)
        (after,) = read_roles(cursor, grants, role)
        foreign = [one for one in grants if one.grantee == after.oid and one.privilege in kind.privileges]
        lost = tuple(one for one in own if one in kind.privileges and one not in after.privileges("own"))
        connect = revoke_connect(cursor, role) if lost else None
        statements += [connect] if connect else []
        left = find_beyond(after, None, shards_here=False)
        still = not {*kind.known_by}.difference(after.privileges(*WITHOUT_SET_ROLE))
        ways = [one for one in left if still and one.privilege in kind.known_by and one.way == "inherited"]
        through = _memberships_to_end(cursor, role, (one.by for one in ways))
        if dry_run:
            cursor.connection.rollback()
        elif has_citus(cursor):
            cursor.connection.commit()
            _wait_for_others(cursor, settings)
            _revoke_on_shards(cursor, role, after.privileges("own"))
    return Revoked(tuple(statements), lost, bool(connect), tuple(foreign), still, through, tuple(left))


def _wait_for_others(cursor: SafeCursor, settings: Settings) -> None:
    """Be alone until the transaction ends: of two that change the grants on one object at once, the server fails one.

    Polls as a migration run does, for the reason that `migration.lock` gives.

    Raises:
        RefusedError: a migration run or another command did not end within `settings.lock_wait`.
    """
    deadline = time.monotonic() + settings.lock_wait / 1000
    while not cursor.value("SELECT pg_try_advisory_xact_lock(%s)", (RUN_LOCK,)):
        if time.monotonic() > deadline:
            holders = cursor.value(select_holders("%(key)s"), {"key": RUN_LOCK})
            raise RefusedError(
                f"another run or command still holds the lock after {settings.lock_wait / 1000:g} s: "
                f"{holders or 'one that has just ended'}",
                hint="Run the same command again when it has ended; what is done already stays.",
            )
        time.sleep(_POLL_S)


def _how_to_end(cursor: SafeCursor, before: Role, kind: Kind, beyond: Sequence[Ability]) -> str:
    """The statements that end it; a second way to the same is seen only after that."""
    owned = [ability for ability in beyond if ability.privilege.name == OWNERSHIP]
    if any(ability.way == "own" for ability in owned):
        return "Take another role: an owner can do everything with what it owns."
    role = before.name
    advice = "Take another role, or run: "
    if owned:  # which migrations may need
        advice = f"Take a login that cannot become the owner (`mlops-db grant-{kind.name} NAME --create`), or run: "
    not_inherited = {
        by: None for privilege, way, by in before.abilities if way == "after SET ROLE" and privilege in kind.known_by
    }
    if not_inherited and before.kind_after_set_role in (kind, WRITER):
        groups = ", ".join(_quoted(cursor, by) for by in not_inherited)
        advice = f"It is a member of {groups}, but inherits nothing from that, so it is no {kind.name}. {advice}"
    me = _quoted(cursor, role)
    statements: dict[str, None] = {}
    granted: defaultdict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for privilege, way, by in beyond:
        if way in ("inherited", "after SET ROLE"):
            statements |= dict.fromkeys(_memberships_to_end(cursor, role, [by]).values())
        elif privilege.kind == LATER:
            statements |= dict.fromkeys(list_later_revokes(cursor, None if by else role))
        elif not privilege.object:
            statements[f"ALTER ROLE {me} NO{privilege.name};"] = None
        else:
            name = privilege.name.removesuffix(OPTION)
            option = "GRANT OPTION FOR " if name != privilege.name else ""
            of_kind = "ROUTINE" if privilege.kind == "function" else privilege.kind.upper()  # it may be a procedure
            granted[option, of_kind, privilege.object, by or me].append(f"{name}{_of_column(privilege)}")
    same: defaultdict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for (option, of_kind, thing, who), names in granted.items():
        same[option, ", ".join(names), of_kind, who].append(thing)
    for (option, what, of_kind, who), things in same.items():
        statements[f"REVOKE {option}{what} ON {of_kind} {', '.join(things)} FROM {who};"] = None
    return advice + " ".join(statements)


def _memberships_to_end(cursor: SafeCursor, role: str, ways: Iterable[str]) -> dict[str, str]:
    """The roles to leave, with the statements that do it, so that a role cannot become these roles any more."""
    me = _quoted(cursor, role)
    found: dict[str, str] = {}
    for by in dict.fromkeys(ways):
        cursor.execute(_WAYS, (role, by))
        found |= {direct: f"REVOKE {_quoted(cursor, direct)} FROM {me};" for (direct,) in cursor.fetchall()}
    return found


def _quoted(cursor: SafeCursor, role: str) -> str:
    return sql.Identifier(role).as_string(cursor)


def _revoke_on_shards(cursor: SafeCursor, role: str, own: Sequence[Privilege]) -> None:
    """Take back what is on the shards, but for what belongs to other grants, which Citus carries there itself."""
    others = any(privilege.object.startswith("mlops_internal.") for privilege in own)
    usage = ON_SHARDS in own and not has_shards_here(cursor)
    tables = [table for table in DISTRIBUTED if Privilege("SELECT", "table", table) not in own]
    revoke_on_shards(cursor, role, tables, with_schema=not (others or usage))


def _statement(cursor: SafeCursor, template: str, privilege: Privilege, role: str) -> str:
    name = _FUNCTIONS.get(privilege.object, privilege.object)
    what = f"{privilege.name}{_of_column(privilege)} ON {privilege.kind.upper()} {name}"
    return template.format(what, _quoted(cursor, role))


def _of_column(privilege: Privilege) -> str:
    return f" ({privilege.column})" if privilege.column else ""


def _is_there(cursor: SafeCursor, privilege: Privilege) -> bool:
    """Whether its object is there: a database that was restored, or that older code migrated, may lack the record."""
    if privilege.object != RUNNING_CODE_TABLE:
        return True
    return bool(cursor.value("SELECT to_regclass(%s) IS NOT NULL", (privilege.object,)))


def _require_owner(cursor: SafeCursor, settings: Settings) -> None:
    """Refuse a role that does not own the tables and views: GRANT and REVOKE would only warn.

    Raises:
        NotPermittedError: it does not.
        MlopsDbError: as `require_tables`.
    """
    require_tables(cursor, settings)
    if not cursor.value(_OWNS_ALL):
        raise _not_permitted(settings, "does not own the tables and views")


def _not_permitted(settings: Settings, why: str) -> NotPermittedError:
    return NotPermittedError(
        f'role "{settings.owner_role or settings.user}" {why}; nothing was changed',
        hint="Connect as the owner of the database, or name it in MLOPS_OWNER_ROLE.",
    )


def _refuse_everybody(role: str) -> None:
    """Refuse PUBLIC in whichever case: a role with that name would look like everybody.

    Raises:
        RefusedError: the role has that name.
    """
    if role.lower() == "public":
        raise RefusedError(f"{role} is everybody; nothing was changed", hint="Name a role, or a new one with --create.")


def _require_role(cursor: SafeCursor, role: str, *, may_be_built_in: bool = False) -> Role:
    """The role; refuses one that is missing, or that is built in.

    Raises:
        RefusedError: the role is such a one.
    """
    found = read_roles(cursor, read_grants(cursor), role)
    if not found or (_is_built_in(role) and not may_be_built_in):
        raise RefusedError(
            f'role "{role}" is built in; nothing was changed'
            if found
            else f'there is no role "{role}" on this server; nothing was changed',
            hint="Built-in roles cannot be used. Create a role for this."
            if _is_built_in(role)
            else f"Check its name, or create it: CREATE ROLE {_quoted(cursor, role)} NOLOGIN;",
        )
    return found[0]


def _is_built_in(role: str) -> bool:
    return role in _BUILT_IN or role.startswith("pg_")
