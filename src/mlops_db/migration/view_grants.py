"""Keeps the grants on views, and those on schema reporting and its functions, when a revision creates these again.

A revision usually has to drop a view to change its columns, and it cannot know the grants of a database. So a run saves
them before a revision, and grants them again at its end, in its transaction, on everything that was created again. It
leaves grants alone on what stays.

A setting of the session holds them, so that the same two statements work in a script of `--sql`, and so that a commit
in an autocommit_block does not end them. They are lost if a revision drops a view, commits in such a block, and fails
before it has created the view again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.project import SCHEMAS
from mlops_db.server.acl import TO_GRANTEE
from mlops_db.server.guests import TRUSTED

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SETTING = "mlops_db.view_grants"

# Of views everywhere in our schemas; of reporting also those on the schema and on its functions.
_GRANTS = f"""\
coalesce((
        SELECT jsonb_agg(jsonb_build_object('kind', made.kind, 'name', made.name, 'oid', made.oid,
                   'column', made.column, 'grant',
                   'GRANT ' || acl.privilege_type || coalesce(' (' || quote_ident(made.column) || ')', '')
                   || ' ON ' || made.kind || ' ' || made.name || {TO_GRANTEE}))
          FROM (
              SELECT 'TABLE' AS kind, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.oid,
                     g.attname AS column, g.items, c.relowner AS owner
                FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               CROSS JOIN LATERAL (
                         SELECT NULL::name AS attname, c.relacl AS items
                          UNION ALL
                         SELECT a.attname, a.attacl FROM pg_attribute AS a
                          WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL
                     ) AS g
               WHERE n.nspname = ANY (ARRAY{[*SCHEMAS]}) AND c.relkind = 'v'
               UNION ALL
              SELECT 'ROUTINE',
                     quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || coalesce((
                         SELECT string_agg(format_type(a.type, NULL), ', ' ORDER BY a.place)
                           FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, place)), '') || ')',
                     p.oid, NULL, p.proacl, p.proowner
                FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = 'reporting'
               UNION ALL
              SELECT 'SCHEMA', quote_ident(n.nspname), n.oid, NULL, n.nspacl, n.nspowner
                FROM pg_namespace AS n WHERE n.nspname = 'reporting'
          ) AS made
          JOIN pg_roles AS role ON role.oid = made.owner
         CROSS JOIN LATERAL aclexplode(made.items) AS acl
         WHERE acl.grantee <> made.owner AND {TRUSTED}
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
            AS g (kind text, name text, oid oid, "column" name, "grant" text)
         CROSS JOIN LATERAL (
                   SELECT CASE g.kind WHEN 'TABLE' THEN to_regclass(g.name)::oid
                                      WHEN 'ROUTINE' THEN to_regprocedure(g.name)::oid
                                      ELSE to_regnamespace(g.name)::oid END AS oid
               ) AS now
         WHERE now.oid <> g.oid
           AND (g.kind <> 'TABLE' OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = now.oid AND c.relkind = 'v'))
           AND (g.column IS NULL OR EXISTS (
                   SELECT FROM pg_attribute AS a WHERE a.attrelid = now.oid AND a.attname = g.column))
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
    """Grant what was saved on what was created again, and forget it.

    Args:
        connection: the one that `save` used.
        saved: what `save` returned, if other runs on the connection have saved theirs since.
    """
    if saved is not None:
        connection.exec_driver_sql(f"SELECT set_config('{_SETTING}', %(saved)s, false)", {"saved": saved})
    connection.exec_driver_sql(RESTORE)
