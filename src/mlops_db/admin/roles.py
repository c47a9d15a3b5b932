"""A role for dashboards: it may read the views, also by the function of schema reporting, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from mlops_db.admin.cluster.shard_grants import grant_on_shards, has_shards_here, refuse_unknown_role
from mlops_db.admin.reader_role import make_login
from mlops_db.errors import NotPermittedError, RefusedError
from mlops_db.project import REPORTING_FUNCTIONS, REPORTING_VIEWS, SCHEMAS, VIEWS
from mlops_db.server.citus import HAS_CITUS
from mlops_db.server.connection import open_cursor
from mlops_db.server.guests import EVERYBODY_MAY_CREATE

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.settings import Settings

READER_VIEWS = (*(f"public.{view}" for view in VIEWS), *(f"reporting.{view}" for view in REPORTING_VIEWS))
READER_FUNCTIONS = tuple(f"reporting.{function}" for function in REPORTING_FUNCTIONS)
BUILT_IN = ("", "public", "none", "current_user", "current_role", "session_user")
_MAY_READ = """
    SELECT has_schema_privilege(%(role)s, 'reporting', 'USAGE')
       AND (SELECT bool_and(has_table_privilege(%(role)s, view, 'SELECT')) FROM unnest(%(views)s::regclass[]) AS view)
       AND (SELECT bool_and(has_function_privilege(%(role)s, function, 'EXECUTE'))
              FROM unnest(%(functions)s::regprocedure[]) AS function)
"""
# What the role can do beyond reading the views, granted to it, to a role that it is a member of, or to PUBLIC. The
# functions has_..._privilege know all three ways, but neither what SET ROLE gives to a role with NOINHERIT, nor that a
# member of a superuser can become one. So they are asked about each role that it can become. What Citus
# shows to everybody is its own. Where the coordinator has shards itself, the reader uses the schema they are in.
_BEYOND = f"""
    SELECT DISTINCT privilege || ' on ' || object
      FROM pg_roles AS able CROSS JOIN LATERAL (
          SELECT privilege, regexp_replace(c.oid::regclass::text, '^public\\.', '') AS object
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
                 unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
           WHERE n.nspname = ANY(%(schemas)s)
             AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
             AND CASE
                     WHEN privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                         THEN has_any_column_privilege(able.oid, c.oid, privilege)
                     ELSE has_table_privilege(able.oid, c.oid, privilege)
                 END
             AND NOT (privilege = 'SELECT' AND c.oid = ANY(%(views)s::regclass[]))
             AND NOT EXISTS (SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                              WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
                                AND e.extname IN ('citus', 'citus_columnar'))
          UNION ALL
          SELECT privilege, 'sequence ' || regexp_replace(c.oid::regclass::text, '^public\\.', '')
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
                 unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS privilege
           WHERE n.nspname = ANY(%(schemas)s) AND c.relkind = 'S'
             AND has_sequence_privilege(able.oid, c.oid, privilege)
          UNION ALL
          SELECT privilege, 'schema mlops_internal' FROM unnest(ARRAY['USAGE', 'CREATE']) AS privilege
           WHERE has_schema_privilege(able.oid, 'mlops_internal', privilege)
             AND NOT (privilege = 'USAGE' AND %(shards_here)s)
          UNION ALL
          SELECT 'CREATE', 'schema reporting' WHERE has_schema_privilege(able.oid, 'reporting', 'CREATE')
          UNION ALL
          SELECT 'CREATE', 'schema public'
           WHERE has_schema_privilege(able.oid, 'public', 'CREATE') AND NOT ({EVERYBODY_MAY_CREATE})
          UNION ALL
          SELECT 'CREATE', 'database ' || quote_ident(current_database())
           WHERE has_database_privilege(able.oid, current_database(), 'CREATE')
      ) AS beyond
     WHERE pg_has_role(%(role)s, able.oid, 'MEMBER')
     ORDER BY 1
"""


def grant_reader(settings: Settings, role: str, *, password: str | None = None, dry_run: bool = False) -> bool:
    """Let a role read the views of public and reporting, in one transaction; refuse it if it can do more than that.

    Migration runs grant it again on what later revisions replace. On Citus the nodes that have shards commit what it
    needs there afterwards; for a worker that is added later, `distribute` grants it.

    Args:
        settings: where the database is; the role that connects owns the views.
        role: name of the role, as PostgreSQL stores it; best without LOGIN, and granted to the logins.
        password: let the role log in with it, and create the role if it is missing; None for a role that exists.
        dry_run: grant, check and roll back.

    Returns:
        Whether everybody, and so this role, may create tables in schema public. That is the default before
        PostgreSQL 15, and only a superuser can revoke it.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: there is no such role, it is built in and should log in, or it can do more than read the views
            already; nothing was changed. Or a worker lacks it, refused, or does not answer.
        NotPermittedError: the connecting role does not own the views, or may not create roles.
    """
    about: dict[str, object] = {
        "role": role,
        "views": list(READER_VIEWS),
        "functions": list(READER_FUNCTIONS),
        "schemas": list(SCHEMAS),
    }
    with open_cursor(settings) as cursor:
        cursor.execute(f"SELECT {EVERYBODY_MAY_CREATE}, {HAS_CITUS}")
        ((may_create, on_citus),) = cursor.fetchall()
        about["shards_here"] = on_citus and has_shards_here(cursor)
        if on_citus and cursor.value("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", (role,)):
            refuse_unknown_role(cursor, role)
        if password is not None and not _is_built_in(role):
            make_login(cursor, role, password)
        _refuse_role(cursor, role, is_login=password is not None)
        for granted in (
            "USAGE ON SCHEMA public, reporting",
            f"SELECT ON {', '.join(READER_VIEWS)}",
            f"EXECUTE ON FUNCTION {', '.join(READER_FUNCTIONS)}",
        ):
            cursor.execute(sql.SQL(f"GRANT {granted} TO {{}}").format(sql.Identifier(role)))
        if not cursor.value(_MAY_READ, about):  # for a role that is not the owner, GRANT only warns
            raise NotPermittedError(
                f'role "{settings.owner_role or settings.user}" may not grant on the views; nothing was changed',
                hint="Connect as the owner of the database, or name it in MLOPS_OWNER_ROLE.",
            )
        cursor.execute(_BEYOND, about)
        beyond = [privilege for (privilege,) in cursor.fetchall()]
        if beyond:
            raise RefusedError(
                f'role "{role}" can do more than read the views: {", ".join(beyond)}; nothing was changed',
                hint="REVOKE that, from the role, from PUBLIC, or from the roles that it is a member of; or take "
                "another role.",
            )
        if dry_run:
            cursor.connection.rollback()
        elif on_citus:
            cursor.connection.commit()  # the nodes know the role only now
            grant_on_shards(cursor, role)
    return bool(may_create)


def _refuse_role(cursor: Cursor, role: str, *, is_login: bool) -> None:
    """Refuse a role that is missing; and as a login one that is built in, which can have no password."""
    cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
    exists = cursor.rowcount > 0
    if not exists or (is_login and _is_built_in(role)):
        create = sql.SQL("CREATE ROLE {} NOLOGIN;").format(sql.Identifier(role)).as_string(cursor)
        raise RefusedError(
            f'role "{role}" is built in; nothing was changed'
            if exists
            else f'there is no role "{role}" on this server; nothing was changed',
            hint="Built-in roles cannot be used. Create a role for this."
            if _is_built_in(role)
            else f"Create it: {create}",
        )


def _is_built_in(role: str) -> bool:
    return role in BUILT_IN or role.startswith("pg_")
