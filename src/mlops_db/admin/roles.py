"""A role for dashboards: it may read the three views, and nothing else."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from mlops_db.errors import NotPermittedError, RefusedError
from mlops_db.project import VIEWS
from mlops_db.server.connection import SafeCursor, connect, explained_statement_failure
from mlops_db.server.guests import EVERYBODY_MAY_CREATE

if TYPE_CHECKING:
    from mlops_db.settings import Settings

NO_ROLES = ("", "public", "none", "current_user", "current_role", "session_user")
# What the role can do beyond reading the views, by whatever way: granted to it, to a role that it is in, or to PUBLIC.
_BEYOND = """
    SELECT format('%%s on %%s', privilege, regexp_replace(c.oid::regclass::text, '^public\\.', '')) AS beyond
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND CASE
               WHEN privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                   THEN has_any_column_privilege(%(role)s, c.oid, privilege)
               ELSE has_table_privilege(%(role)s, c.oid, privilege)
           END
       AND NOT (privilege = 'SELECT' AND c.oid = ANY(%(views)s::regclass[]))
    UNION ALL
    SELECT format('%%s on sequence %%s', privilege, regexp_replace(c.oid::regclass::text, '^public\\.', ''))
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS privilege
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind = 'S'
       AND has_sequence_privilege(%(role)s, c.oid, privilege)
    UNION ALL
    SELECT format('%%s on schema mlops_internal', privilege)
      FROM unnest(ARRAY['USAGE', 'CREATE']) AS privilege
     WHERE has_schema_privilege(%(role)s, 'mlops_internal', privilege)
    UNION ALL
    SELECT 'CREATE on schema public'
     WHERE has_schema_privilege(%(role)s, 'public', 'CREATE') AND NOT ({everybody_may_create})
    UNION ALL
    SELECT format('CREATE on database %%I', current_database())
     WHERE has_database_privilege(%(role)s, current_database(), 'CREATE')
     ORDER BY 1
"""


def grant_reader(settings: Settings, role: str, *, dry_run: bool = False) -> bool:
    """Let a role read the three views, and hold it to that.

    What later revisions make anew keeps the grant: a migration run gives it again. All in one transaction.

    Args:
        settings: where the database is; the role that connects owns the views.
        role: name of the role, as PostgreSQL stores it; best one without LOGIN, which those who log in are members of.
        dry_run: grant, check and roll back.

    Returns:
        Whether everybody, and so this role, may create tables in schema public: what PostgreSQL before 15 has as its
        default is not this database's owner's to take away.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: there is no such role, or it can do more than read the views already; nothing was changed.
        NotPermittedError: the connecting role does not own the views.
    """
    views = [f"public.{view}" for view in VIEWS]
    name = sql.Identifier(role)
    with closing(connect(settings)) as connection, connection, connection.cursor(cursor_factory=SafeCursor) as cursor:
        try:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
            if cursor.rowcount == 0:
                create = sql.SQL("CREATE ROLE {} NOLOGIN").format(name).as_string(connection)
                raise RefusedError(
                    f'there is no role "{role}" on this server; nothing was changed',
                    hint="Name a role of your own."
                    if role in NO_ROLES or role.startswith("pg_")
                    else f"Create it: {create};",
                )
            for statement in ("GRANT USAGE ON SCHEMA public TO {}", f"GRANT SELECT ON {', '.join(views)} TO {{}}"):
                cursor.execute(sql.SQL(statement).format(name))
            cursor.execute(
                "SELECT bool_and(has_table_privilege(%s, view, 'SELECT')) FROM unnest(%s::regclass[]) AS view",
                (role, views),
            )
            if cursor.fetchone() != (True,):  # to who does not own them, the server only says a warning
                raise NotPermittedError(
                    f'role "{settings.owner_role or settings.user}" may not grant on the views; nothing was changed',
                    hint="Connect as the owner of the database, or name it in MLOPS_OWNER_ROLE.",
                )
            cursor.execute(_BEYOND.format(everybody_may_create=EVERYBODY_MAY_CREATE), {"role": role, "views": views})
            beyond = [privilege for (privilege,) in cursor.fetchall()]
            if beyond:
                raise RefusedError(
                    f'role "{role}" can do more than read the views: {", ".join(beyond)}; nothing was changed',
                    hint="REVOKE that, from the role, from PUBLIC, or from the roles that it is a member of; or take "
                    "another role.",
                )
            cursor.execute(f"SELECT {EVERYBODY_MAY_CREATE}")
            (may_create,) = cursor.fetchone() or (False,)
            if dry_run:
                connection.rollback()
        except psycopg2.Error as error:
            raise explained_statement_failure(error, settings) from None
    return bool(may_create)
