"""Grants on the views of `public` outlive a revision that drops the views and makes them anew.

A view's columns seldom change in another way, and a revision cannot know whom somebody has granted what. So a run saves
the grants before a revision and gives them again at its end, in its transaction, to every view that is another one by
then. What a revision, or somebody beside it, grants or revokes on a view that stays is left alone.

They are carried in a setting of the session, so that the same two statements serve a script of `--sql`, and so that a
block in which a revision commits does not end them. They are lost if a revision drops a view, commits in such a block,
and fails before it has made the view again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.server.acl import TO_GRANTEE
from mlops_db.server.guests import TRUSTED

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SETTING = "mlops_db.view_grants"

_GRANTS = f"""\
coalesce((
        SELECT jsonb_agg(jsonb_build_object('view', c.relname, 'oid', c.oid, 'column', g.attname, 'grant',
                   'GRANT ' || acl.privilege_type || coalesce(' (' || quote_ident(g.attname) || ')', '')
                   || ' ON public.' || quote_ident(c.relname) || {TO_GRANTEE}))
          FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
         CROSS JOIN LATERAL (
                   SELECT NULL::name AS attname, c.relacl AS items
                    UNION ALL
                   SELECT a.attname, a.attacl FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL
               ) AS g
         CROSS JOIN LATERAL aclexplode(g.items) AS acl
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v' AND acl.grantee <> c.relowner AND {TRUSTED}
    )::text, '')"""

# An expression that saves them, until its transaction is rolled back; '' if there are none.
SAVING = f"set_config('{_SETTING}', {_GRANTS}, false)"
SAVED = f"current_setting('{_SETTING}')"
SAVE = f"""\
DO $save$ BEGIN
    PERFORM {SAVING};
END $save$;"""

RESTORE = f"""\
DO $restore$
DECLARE
    saved text;
BEGIN
    FOR saved IN
        SELECT g.grant
          FROM jsonb_to_recordset(nullif(current_setting('{_SETTING}', true), '')::jsonb)
            AS g (view name, oid oid, "column" name, "grant" text)
          JOIN pg_class AS c ON c.relnamespace = 'public'::regnamespace AND c.relname = g.view AND c.relkind = 'v'
         WHERE c.oid <> g.oid
           AND (g.column IS NULL OR EXISTS (
                   SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = g.column))
    LOOP
        EXECUTE saved;
    END LOOP;
    PERFORM set_config('{_SETTING}', '', false);
END $restore$;"""


def save(connection: Connection) -> None:
    """Save the grants; a rollback of the transaction undoes that."""
    connection.exec_driver_sql(f"SELECT {SAVING}")


def restore(connection: Connection) -> None:
    """Give them to the views that have been made anew; each saving is good for once."""
    connection.exec_driver_sql(RESTORE)


def take(connection: Connection) -> str:
    """What is saved, to be given back with `put`: other runs on the connection save their own."""
    saved: str = connection.exec_driver_sql(f"SELECT {SAVED}").scalar_one()
    return saved


def put(connection: Connection, saved: str) -> None:
    """Take back what `take` returned."""
    connection.exec_driver_sql(f"SELECT set_config('{_SETTING}', %(saved)s, false)", {"saved": saved})
