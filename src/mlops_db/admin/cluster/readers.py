"""Sets the views that read the tables aside while Citus changes these, and puts them back.

Meanwhile they read nothing. They stay the same objects, with their grants, comments, owners, and the views of others
over them. Citus sees no views then: it would copy them to the workers, which need none, and undistribute_table would
drop them all and make them again without their grants and comments.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2.errors

from mlops_db.admin.cluster.layout import TREE
from mlops_db.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

NAME = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
_HERE_ONLY = "SET LOCAL citus.enable_ddl_propagation = off"
_EVERYWHERE = "SET LOCAL citus.enable_ddl_propagation = on"
# The views that read the tables themselves, and those that read such views.
_READERS = f"""
    WITH RECURSIVE {TREE}, reads (what, view) AS (
        SELECT d.refobjid, r.ev_class FROM pg_depend AS d
          JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
    ), readers (oid, direct) AS (
        SELECT reads.view, true FROM reads JOIN tree ON tree.oid = reads.what
         UNION
        SELECT reads.view, false FROM reads JOIN readers ON readers.oid = reads.what
    )
    SELECT c.oid, bool_or(readers.direct), {NAME}, c.relkind = 'm', quote_ident(pg_get_userbyid(c.relowner)),
           pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'), quote_ident(n.nspname)
      FROM readers JOIN pg_class AS c ON c.oid = readers.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('v', 'm')
     GROUP BY c.oid, c.relname, c.relkind, c.relowner, n.oid, n.nspname  -- before 14, oid is no key
     ORDER BY c.oid
"""
# A view with the same columns that reads nothing, and the view as it is. Only a view of rows takes a check option.
_VIEW = f"""
    SELECT format('CREATE OR REPLACE VIEW %%s%%s AS SELECT %%s', {NAME}, options.of_empty, (
               SELECT string_agg(format('NULL::%%s%%s AS %%I', format_type(a.atttypid, a.atttypmod),
                          CASE WHEN a.attcollation <> t.typcollation
                               THEN ' COLLATE ' || a.attcollation::regcollation ELSE '' END, a.attname),
                          ', ' ORDER BY a.attnum)
                 FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
                WHERE a.attrelid = c.oid AND a.attnum > 0)),
           format('CREATE OR REPLACE VIEW %%s%%s AS %%s', {NAME}, options.of_view, pg_get_viewdef(c.oid))
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     CROSS JOIN LATERAL (
               SELECT coalesce(' WITH (' || string_agg(o.setting, ', ') || ')', ''),
                      coalesce(' WITH (' || string_agg(o.setting, ', ') FILTER (WHERE o.name <> 'check_option')
                               || ')', '')
                 FROM (SELECT option_name, format('%%I = %%L', option_name, option_value)
                         FROM pg_options_to_table(c.reloptions)) AS o (name, setting)) AS options (of_view, of_empty)
     WHERE c.oid = %s
"""
# PostgreSQL shows `varchar = varchar` as a comparison of two casts, and Citus takes only implicit casts where tables
# are joined by the columns that they are distributed by.
_JOIN = re.compile(r"\(((?:\w+\.)?model_name)\)::text = \(((?:\w+\.)?model_name)\)::text")


def find_unjoinable(cursor: Cursor) -> dict[str, str]:
    """The views over the distributed tables that Citus refuses because of casts in their joins, with their cure.

    Dumps, pg_upgrade and pg_get_viewdef write PostgreSQL's own casts out, and whoever runs that text has such a view.

    Returns:
        For each view the statement that writes it anew without the casts. It stays the same object.
    """
    cursor.execute(_READERS)
    views = [(oid, name) for oid, direct, name, materialized, *_ in cursor.fetchall() if direct and not materialized]
    return {name: cure for oid, name in views if _is_refused(cursor, name) and (cure := _without_casts(cursor, oid))}


def _is_refused(cursor: Cursor, view: str) -> bool:
    cursor.execute("SAVEPOINT explained")
    try:
        cursor.execute(f"EXPLAIN SELECT 1 FROM {view}")
    except psycopg2.errors.FeatureNotSupported as error:
        return "complex joins" in str(error)
    finally:
        if not cursor.connection.closed:
            cursor.execute("ROLLBACK TO SAVEPOINT explained")
    return False


def _without_casts(cursor: Cursor, oid: int) -> str | None:
    """The statement that writes a view anew; None if it has no such casts, so that Citus refuses something else."""
    cursor.execute(_VIEW, (oid,))
    ((_, definition),) = cursor.fetchall()
    cure, changes = _JOIN.subn(r"\1 = \2", definition)
    return cure if changes else None


def make_joinable(cursor: Cursor) -> list[str]:
    """Write these views anew without the casts; returns their names."""
    cures = find_unjoinable(cursor)
    cursor.execute(_HERE_ONLY)
    for cure in cures.values():
        cursor.execute(cure)
    cursor.execute(_EVERYWHERE)
    return list(cures)


def refuse_readers(cursor: Cursor) -> None:
    """Refuse views that read the tables and cannot be replaced.

    Raises:
        RefusedError: there are some; the message names all of them.
    """
    found, remedies = [], ["Drop it first, and make it again afterwards."]
    cursor.execute(_READERS)
    for _, direct, name, materialized, owner, ours, schema in cursor.fetchall():
        if direct and materialized:
            found.append(f"the materialized view {name}")
        elif direct and not ours:
            found.append(f"the view {name} of role {owner}")
            remedies.append(
                f"Or let a superuser run GRANT {owner} TO {{role}}; GRANT CREATE ON SCHEMA {schema} TO {{role}};"
            )
    if found:
        cursor.execute("SELECT quote_ident(current_user)")
        [(role,)] = cursor.fetchall()
        raise RefusedError(
            f"{', '.join(found)} cannot be kept: it reads the tables themselves; nothing was changed",
            hint=" ".join(dict.fromkeys(remedies)).replace("{role}", role),
        )


@contextmanager
def readers_set_aside(cursor: Cursor) -> Iterator[list[int]]:
    """Let the views that read the tables read nothing during the block; gives the oids of all views over them."""
    cursor.execute(_READERS)
    readers = cursor.fetchall()
    definitions = []
    cursor.execute(_HERE_ONLY)
    for oid, direct, *_ in readers:
        if direct:
            cursor.execute(_VIEW, (oid,))
            [(empty, definition)] = cursor.fetchall()
            definitions.append(definition)
            cursor.execute(empty)
    cursor.execute(_EVERYWHERE)
    yield [oid for oid, *_ in readers]
    cursor.execute(_HERE_ONLY)
    for definition in definitions:
        cursor.execute(_JOIN.sub(r"\1 = \2", definition))
    cursor.execute(_EVERYWHERE)
