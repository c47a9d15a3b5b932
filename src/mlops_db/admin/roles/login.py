"""A role that logs in: it is made, or gets its password again; and whether it may connect to the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

from mlops_db.errors import NotPermittedError

if TYPE_CHECKING:
    from mlops_db.server.cursor import SafeCursor

# The server keeps a list of what a role owns or has a grant on, database by database. What it may need as a member of
# another role, or its members through it, is not known, such as their own tables. A member that inherits nothing does
# not connect through it: from PostgreSQL 16 on, who creates a role without being a superuser is such a member.
_CONNECT_ALONE = """
    SELECT here.datname
      FROM pg_database AS here CROSS JOIN LATERAL aclexplode(here.datacl) AS acl
      JOIN pg_roles AS role ON role.oid = acl.grantee
     WHERE here.datname = current_database() AND role.rolname = %s AND acl.privilege_type = 'CONNECT'
       AND acl.grantor = here.datdba AND role.oid <> here.datdba AND pg_has_role(here.datdba, 'USAGE')
       AND NOT EXISTS (SELECT FROM pg_shdepend AS d
                        WHERE d.dbid = here.oid AND d.refclassid = 'pg_authid'::regclass AND d.refobjid = role.oid)
       AND NOT EXISTS (SELECT FROM pg_auth_members AS m
                        WHERE m.member = role.oid
                           OR m.roleid = role.oid AND pg_has_role(m.member, role.oid, 'USAGE'))
"""


def make_login(cursor: SafeCursor, role: str, password: str) -> None:
    """Let a role log in to the database with this password, in the cursor's transaction; create it if it is missing.

    The server gets the hash of the password (SCRAM-SHA-256), so neither it nor its log sees the password.

    Args:
        cursor: its role in force has CREATEROLE, or is a superuser.
        role: its name, as PostgreSQL stores it.
        password: its password.

    Raises:
        NotPermittedError: the role in force may not create roles, or not change this one, or not let it connect.
    """
    exists = cursor.value("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", (role,))
    hashed = encrypt_password(password, role, scope=cursor.connection, algorithm="scram-sha-256")
    statement = sql.SQL("{} {} LOGIN PASSWORD {}").format(
        sql.SQL("ALTER ROLE" if exists else "CREATE ROLE"), sql.Identifier(role), sql.Literal(hashed)
    )
    try:
        cursor.execute(statement)
    except psycopg2.errors.InsufficientPrivilege:
        change = f'may not change role "{role}"' if exists else f'may not create role "{role}"'
        raise NotPermittedError(
            f"the role in force (the owner role, where MLOPS_OWNER_ROLE is set) {change}; nothing was changed",
            hint="Let a superuser, or a role with CREATEROLE, do that, and leave out --create. Or let a superuser "
            "give CREATEROLE to the role in force, which may then create roles, and change those that it created.",
        ) from None
    _let_connect(cursor, role)


def _let_connect(cursor: SafeCursor, role: str) -> None:
    """Grant CONNECT, if it was revoked from PUBLIC."""
    cursor.execute(
        "SELECT current_database(), has_database_privilege(current_database(), 'CONNECT WITH GRANT OPTION')"
        " WHERE NOT has_database_privilege(%s, current_database(), 'CONNECT')",
        (role,),
    )
    for database, may_grant in cursor.fetchall():
        if not may_grant:
            raise NotPermittedError(
                f'role "{role}" may not connect to this database, nor may the role in force grant that; nothing was '
                "changed",
                hint="Let the owner of the database do it, or GRANT CONNECT ON DATABASE to the role.",
            )
        cursor.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database), sql.Identifier(role))
        )


def revoke_connect(cursor: SafeCursor, role: str) -> str | None:
    """Take back CONNECT, if the role and its members need it for nothing else; returns the statement.

    Args:
        cursor: of the owner of the database; for others, nothing is taken back.
        role: the role.
    """
    database = cursor.value(_CONNECT_ALONE, (role,))
    if database is None:
        return None
    names = sql.Identifier(database), sql.Identifier(role)
    statement = sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {};").format(*names).as_string(cursor)
    cursor.execute(statement)
    return statement
