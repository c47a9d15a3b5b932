"""A role for dashboards: it may read the three views, and nothing else."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from mlops_db.errors import NotPermittedError, RefusedError
from mlops_db.schema.objects import VIEWS
from mlops_db.server.connection import connect, explained_statement_failure

if TYPE_CHECKING:
    from mlops_db.settings import Settings

# What the role can do beyond reading the views, by whatever way: granted to it, to a role that it is in, or to PUBLIC.
_BEYOND = """
    SELECT format('%%s on %%s', privilege, c.oid::regclass)
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND has_table_privilege(%(role)s, c.oid, privilege)
       AND NOT (privilege = 'SELECT' AND c.oid = ANY(%(views)s::regclass[]))
    UNION ALL
    SELECT 'CREATE on schema mlops_internal'
     WHERE has_schema_privilege(%(role)s, 'mlops_internal', 'CREATE')
     ORDER BY 1
"""


def grant_reader(settings: Settings, role: str) -> bool:
    """Let a role read the three views, and hold it to that.

    What later revisions make anew keeps the grant: a migration run gives it again. All in one transaction.

    Args:
        settings: where the database is; the role that connects owns the views.
        role: name of the role, as PostgreSQL stores it; best one without LOGIN, which those who log in are members of.

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
    with closing(connect(settings)) as connection, connection, connection.cursor() as cursor:
        try:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
            if cursor.rowcount == 0:
                raise RefusedError(
                    f'there is no role "{role}" on this server; nothing was changed',
                    hint=f"Create it: {sql.SQL('CREATE ROLE {} NOLOGIN').format(name).as_string(connection)};",
                )
            for statement in ("GRANT USAGE ON SCHEMA public TO {}", f"GRANT SELECT ON {', '.join(views)} TO {{}}"):
                cursor.execute(sql.SQL(statement).format(name))
            for notice in connection.notices:
                # To somebody who does not own them, GRANT grants nothing and only warns.
                if "no privileges were granted" in notice:
                    raise NotPermittedError(
                        f'role "{settings.user}" may not grant on the views; nothing was changed',
                        hint="Connect as the owner of the database.",
                    )
            cursor.execute(_BEYOND, {"role": role, "views": views})
            beyond = [privilege for (privilege,) in cursor.fetchall()]
            if beyond:
                raise RefusedError(
                    f'role "{role}" can do more than read the views: {", ".join(beyond)}; nothing was changed',
                    hint="REVOKE that, from the role, from PUBLIC, or from the roles that it is a member of; or take "
                    "another role.",
                )
            cursor.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE')", (role,))
            (may_create,) = cursor.fetchone() or (False,)
        except psycopg2.Error as error:
            raise explained_statement_failure(error, settings) from None
    return bool(may_create)
