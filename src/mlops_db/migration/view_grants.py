"""Keeps the grants on the views of `public` when a revision drops views and creates them again.

A revision usually has to do that to change a view's columns, and it cannot know the grants of a database. So a run
saves them before a revision, and grants them again at its end, in its transaction, on every view that was created
again. It leaves grants alone on a view that stays.

A setting of the session holds them, so that the same two statements work in a script of `--sql`, and so that a commit
in an autocommit_block does not end them. They are lost if a revision drops a view, commits in such a block, and fails
before it has created the view again.
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

# An expression that saves them and returns them, '' if there are none; a rollback of the transaction undoes it.
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


def save(connection: Connection) -> str:
    """Save the grants and return them; a rollback of the transaction undoes it."""
    saved: str = connection.exec_driver_sql(f"SELECT {SAVING}").scalar_one()
    return saved


def restore(connection: Connection, saved: str | None = None) -> None:
    """Grant what was saved on the views that were created again, and forget it.

    Args:
        connection: the one that `save` used.
        saved: what `save` returned, if other runs on the connection have saved theirs since.
    """
    if saved is not None:
        connection.exec_driver_sql(f"SELECT set_config('{_SETTING}', %(saved)s, false)", {"saved": saved})
    connection.exec_driver_sql(RESTORE)
