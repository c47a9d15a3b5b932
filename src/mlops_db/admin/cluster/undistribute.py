"""Brings the distributed tables back to the coordinator, with everything that is on them.

Citus' undistribute_table makes new tables. It loses comments, some grants and settings, and would drop the views that
read the old ones. So the views read nothing meanwhile, and stay the same objects with their grants, comments and
guests' views over them; and what Citus loses is saved before and set again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from psycopg2 import sql

from mlops_db.admin.cluster.functions import make_plain
from mlops_db.admin.cluster.layout import DISTRIBUTED, METRICS, SERIES, TREE, Layout, count_rows, read_layout
from mlops_db.admin.cluster.outcome import Outcome, Step, expect_stall
from mlops_db.admin.cluster.readers import NAME, readers_set_aside, refuse_readers
from mlops_db.admin.cluster.requirements import refuse_obstacles
from mlops_db.admin.cluster.transaction import change, looking
from mlops_db.drift.catalogue import read_catalogue
from mlops_db.errors import RefusedError
from mlops_db.migration.progress import Progress
from mlops_db.server.acl import TO_GRANTEE

if TYPE_CHECKING:
    from typing import TextIO

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

_log = logging.getLogger("mlops_db.maintenance")

SECONDS_A_MILLION = 25.0
SEQUENCE = "public.monitoring_metrics_id_seq"
# A lock on every shard, also against transactions that were prepared on a worker and are not committed there yet:
# their rows could not be seen. The columns are NOT NULL already.
_LOCK_SHARDS = (
    f"ALTER TABLE {METRICS} ALTER COLUMN model_name SET NOT NULL",
    f"ALTER TABLE {SERIES} ALTER COLUMN model_name SET NOT NULL",
)
# What else depends on the tables or their row types, and would be dropped with them.
_DEPENDENTS = f"""
    WITH {TREE}, things (class, oid) AS (
        SELECT 'pg_class'::regclass::oid, oid FROM tree
         UNION ALL
        SELECT 'pg_type'::regclass, t.oid FROM pg_type AS t JOIN tree ON t.typrelid = tree.oid
         UNION ALL
        SELECT 'pg_type'::regclass, t.typarray FROM pg_type AS t JOIN tree ON t.typrelid = tree.oid
    )
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid)
      FROM pg_depend AS d JOIN things ON d.refclassid = things.class AND d.refobjid = things.oid
      LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
     WHERE d.deptype = 'n' AND r.oid IS NULL
       AND NOT (d.classid = 'pg_class'::regclass AND d.objid IN (SELECT oid FROM tree))
       AND NOT EXISTS (SELECT FROM pg_constraint AS k JOIN tree ON k.conrelid = tree.oid
                        WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid)
       AND NOT EXISTS (SELECT FROM pg_attrdef AS a JOIN tree ON a.adrelid = tree.oid
                        WHERE d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid)
     ORDER BY 1
"""
# Grants that others made with a grant option, and tablespaces of single tables.
_NOT_CARRIED = f"""
    WITH {TREE}
    SELECT 'the grant to ' || coalesce(quote_ident(pg_get_userbyid(nullif(acl.grantee, 0))), 'PUBLIC') || ' by '
           || quote_ident(pg_get_userbyid(acl.grantor)) || ' on ' || tree.oid::regclass
      FROM tree JOIN pg_class AS c ON c.oid = tree.oid
     CROSS JOIN LATERAL (SELECT c.relacl UNION ALL SELECT a.attacl FROM pg_attribute AS a WHERE a.attrelid = c.oid)
        AS o (items)
     CROSS JOIN LATERAL aclexplode(o.items) AS acl
     WHERE acl.grantor <> c.relowner
     UNION ALL
    SELECT 'the tablespace of ' || c.oid::regclass FROM tree JOIN pg_class AS c ON c.oid = tree.oid
     WHERE c.reltablespace <> 0
     ORDER BY 1
"""
_IN_TREE = "tree JOIN pg_class AS c ON c.oid = tree.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
# What Citus does not set on the new tables, or not on all of them, as the statements that set it.
_PROPERTIES = rf"""
    WITH {TREE}
    SELECT statement FROM (
        SELECT 1, format('COMMENT ON %s %s IS %L', CASE c.relkind WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX'
                         ELSE 'TABLE' END, {NAME}, d.description)
          FROM (SELECT oid FROM tree UNION ALL
                SELECT i.indexrelid FROM pg_index AS i JOIN tree ON tree.oid = i.indrelid) AS o (oid)
          JOIN pg_class AS c ON c.oid = o.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_description AS d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = 0
         UNION ALL
        SELECT 1, format('COMMENT ON COLUMN %s.%I IS %L', {NAME}, a.attname, d.description)
          FROM {_IN_TREE} JOIN pg_attribute AS a ON a.attrelid = c.oid
          JOIN pg_description AS d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = a.attnum
         WHERE a.attnum > 0
         UNION ALL
        SELECT 1, format('COMMENT ON CONSTRAINT %I ON %s IS %L', k.conname, {NAME}, d.description)
          FROM {_IN_TREE} JOIN pg_constraint AS k ON k.conrelid = c.oid
          JOIN pg_description AS d ON d.classoid = 'pg_constraint'::regclass AND d.objoid = k.oid
         UNION ALL
        SELECT 1, format('COMMENT ON TRIGGER %I ON %s IS %L', t.tgname, {NAME}, d.description)
          FROM {_IN_TREE} JOIN pg_trigger AS t ON t.tgrelid = c.oid
          JOIN pg_description AS d ON d.classoid = 'pg_trigger'::regclass AND d.objoid = t.oid
         UNION ALL
        SELECT 1, format('COMMENT ON STATISTICS %s.%I IS %L', s.stxnamespace::regnamespace, s.stxname, d.description)
          FROM tree JOIN pg_statistic_ext AS s ON s.stxrelid = tree.oid
          JOIN pg_description AS d ON d.classoid = 'pg_statistic_ext'::regclass AND d.objoid = s.oid
         UNION ALL
        SELECT 1, format('COMMENT ON TYPE %s IS %L', {NAME}, d.description)
          FROM {_IN_TREE} JOIN pg_description AS d ON d.classoid = 'pg_type'::regclass AND d.objoid = c.reltype
         UNION ALL
        SELECT 2, format('ALTER TABLE ONLY %s ALTER COLUMN %I SET STATISTICS %s', {NAME}, a.attname, a.attstattarget)
          FROM {_IN_TREE} JOIN pg_attribute AS a ON a.attrelid = c.oid
         WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget >= 0
         UNION ALL
        SELECT 2, format('ALTER TABLE ONLY %s ALTER COLUMN %I SET (%s)', {NAME}, a.attname, (
                   SELECT string_agg(format('%I = %L', o.option_name, o.option_value), ', ')
                     FROM pg_options_to_table(a.attoptions) AS o WHERE o.option_name LIKE 'n_distinct%'))
          FROM {_IN_TREE} JOIN pg_attribute AS a ON a.attrelid = c.oid
         WHERE a.attoptions::text LIKE '%n_distinct%' AND NOT a.attisdropped
         UNION ALL
        SELECT 2, format('ALTER TABLE ONLY %s ALTER COLUMN %I SET STORAGE %s', {NAME}, a.attname,
                         CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN'
                         ELSE 'EXTENDED' END)
          FROM {_IN_TREE} JOIN pg_attribute AS a ON a.attrelid = c.oid JOIN pg_type AS t ON t.oid = a.atttypid
         WHERE a.attnum > 0 AND a.attstorage <> t.typstorage
         UNION ALL
        SELECT 2, format('ALTER TABLE %s SET (%s)', {NAME}, (
                   SELECT string_agg(format('%s%I = %L', o.prefix, p.option_name, p.option_value), ', ')
                     FROM (VALUES ('', c.reloptions), ('toast.', toast.reloptions)) AS o (prefix, options)
                    CROSS JOIN LATERAL pg_options_to_table(o.options) AS p))
          FROM {_IN_TREE} LEFT JOIN pg_class AS toast ON toast.oid = c.reltoastrelid
         WHERE c.relkind = 'r' AND (c.reloptions IS NOT NULL OR toast.reloptions IS NOT NULL)
         UNION ALL
        SELECT 2, format('ALTER TABLE ONLY %s REPLICA IDENTITY %s', {NAME}, CASE c.relreplident
                   WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'USING INDEX ' || (
                       SELECT quote_ident(named.relname)
                         FROM pg_index AS i JOIN pg_class AS named ON named.oid = i.indexrelid
                        WHERE i.indrelid = c.oid AND i.indisreplident) END)
          FROM {_IN_TREE} WHERE c.relreplident <> 'd'
         UNION ALL
        SELECT 2, format('ALTER TABLE %s CLUSTER ON %I', {NAME}, named.relname)
          FROM {_IN_TREE} JOIN pg_index AS i ON i.indrelid = c.oid JOIN pg_class AS named ON named.oid = i.indexrelid
         WHERE i.indisclustered
         UNION ALL
        SELECT 2, format('ALTER TABLE %s %s TRIGGER %I', {NAME}, CASE t.tgenabled WHEN 'D' THEN 'DISABLE'
                         WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, t.tgname)
          FROM {_IN_TREE} JOIN pg_trigger AS t ON t.tgrelid = c.oid WHERE t.tgenabled <> 'O' AND NOT t.tgisinternal
         UNION ALL
        SELECT 3, format('GRANT %s%s ON TABLE %s', acl.privilege_type, ' (' || quote_ident(o.attname) || ')', {NAME})
               || {TO_GRANTEE}
          FROM {_IN_TREE}
         CROSS JOIN LATERAL (
                   SELECT NULL::name, coalesce(c.relacl, acldefault('r', c.relowner))
                    UNION ALL
                   SELECT a.attname, a.attacl FROM pg_attribute AS a
                    WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL
               ) AS o (attname, items)
         CROSS JOIN LATERAL aclexplode(o.items) AS acl
    ) AS saved (place, statement)
    ORDER BY place
"""
# What default privileges, and Citus, have granted on the new tables.
_REVOKE = f"""
    WITH {TREE}
    SELECT DISTINCT format('REVOKE ALL ON TABLE %s FROM %s', {NAME},
                           coalesce(quote_ident(pg_get_userbyid(nullif(acl.grantee, 0))), 'PUBLIC'))
      FROM {_IN_TREE} CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
"""
# PostgreSQL 18 names NOT NULL constraints, by the names that the tables have meanwhile.
_NOT_NULLS = f"""
    WITH {TREE}
    SELECT {NAME}, a.attname::text, k.conname::text
      FROM {_IN_TREE} JOIN pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'n'
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
"""
# A name cannot be changed in a partition, nor in its table while the partition has another.
_PARTITIONS = f"""
    SELECT format('ALTER TABLE {METRICS} DETACH PARTITION %s', {NAME}),
           format('ALTER TABLE {METRICS} ATTACH PARTITION %s %s', {NAME}, pg_get_expr(c.relpartbound, c.oid))
      FROM pg_inherits AS h JOIN pg_class AS c ON c.oid = h.inhrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE h.inhparent = '{METRICS}'::regclass
"""
_UNMARK = """
    SELECT pg_catalog.citus_unmark_object_distributed(o.classid, o.objid, o.objsubid, false)
      FROM pg_catalog.pg_dist_object AS o
     WHERE o.classid = 'pg_class'::regclass
       AND (o.objid = %s::regclass OR o.objid = ANY (%s::oid[]))
"""


def plan_return(settings: Settings) -> Outcome:
    """Plan what `undistribute` would do now; only reads.

    Args and errors are those of `undistribute`.
    """
    with looking(settings) as cursor:
        layout = read_layout(cursor)
        if layout.distributed:
            _refuse_what_would_be_lost(cursor)
        return _plan(cursor, layout)


def undistribute(settings: Settings, *, progress: TextIO | None = None) -> Outcome:
    """Bring monitoring_metrics and metric_series back to the coordinator, with all that is on them.

    All is done in one transaction: wherever it is killed, either all is done or nothing. Readers and writers of the
    metrics wait for its end. The coordinator needs the space.

    Args:
        settings: where the coordinator is; the role owns the tables.
        progress: a stream for a line about each step; None logs them to `mlops_db.maintenance`.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: something depends on the tables that could not be brought back, or somebody held a table for too
            long; nothing was changed.
        StatementFailedError: the server refused.
    """
    planned = plan_return(settings)
    if not planned.steps:
        return planned
    reporter = Progress(progress, _log)
    reporter.fields["target"] = settings.target
    steps: list[Step] = []
    try:
        reporter.note(planned.expectation)
        change(settings, reporter, lambda cursor: _bring_back(cursor, steps, reporter))
    finally:
        reporter.stop()
    return Outcome(None, tuple(steps), planned.rows, planned.size, planned.stall_s)


def _plan(cursor: SafeCursor, layout: Layout) -> Outcome:
    rows, size = count_rows(cursor, layout) if layout.distributed else (0, 0)
    steps = tuple(Step("bring back", table) for table in reversed(DISTRIBUTED) if table in layout.distributed)
    return Outcome(None, steps, rows, size, expect_stall(rows, SECONDS_A_MILLION) if steps else 0.0)


def _refuse_what_would_be_lost(cursor: Cursor) -> None:
    """Refuse what cannot be brought back.

    Raises:
        RefusedError: there is something; the message names all of it, and the hint what to do.
    """
    refuse_obstacles(cursor, "cannot be brought back")
    refuse_readers(cursor)
    cursor.execute(_DEPENDENTS)
    found = [name for (name,) in cursor.fetchall()]
    cursor.execute(_NOT_CARRIED)
    found += [name for (name,) in cursor.fetchall()]
    if found:
        raise RefusedError(
            f"the tables would lose {', '.join(found)}; nothing was changed",
            hint="Drop it first, and make it again afterwards.",
        )


def _bring_back(cursor: Cursor, steps: list[Step], progress: Progress) -> None:
    steps.clear()
    layout = read_layout(cursor)
    if not layout.distributed:
        return
    _refuse_what_would_be_lost(cursor)
    steps.extend(Step("rewrite", name) for name in make_plain(cursor))
    for statement in _LOCK_SHARDS:
        cursor.execute(statement)
    before = read_catalogue(cursor)
    properties = _column(cursor, _PROPERTIES)
    names = _not_nulls(cursor)
    with readers_set_aside(cursor) as views:
        for table in (METRICS, SERIES):
            if table in layout.distributed:
                progress.begin(f"bring back {table.partition('.')[2]}")
                cursor.execute("SELECT undistribute_table(%s)", (table,))
                progress.done()
                steps.append(Step("bring back", table))
        cursor.execute(_UNMARK, (SEQUENCE, views))
    for statement in (*_column(cursor, _REVOKE), *properties):
        cursor.execute(statement)
    _rename_not_nulls(cursor, names)
    after = read_catalogue(cursor)
    changed = [str(name) for name in {**before, **after} if before.get(name) != after.get(name)]
    if changed:
        raise RefusedError(
            f"these would not be as before: {', '.join(changed)}; nothing was changed",
            hint="Drop what is special about them first, and make it again afterwards.",
        )


def _column(cursor: Cursor, query: str) -> list[str]:
    cursor.execute(query)
    return [value for (value,) in cursor.fetchall()]


def _not_nulls(cursor: Cursor) -> dict[tuple[str, str], str]:
    cursor.execute(_NOT_NULLS)
    return {(table, column): name for table, column, name in cursor.fetchall()}


def _rename_not_nulls(cursor: Cursor, names: dict[tuple[str, str], str]) -> None:
    """Give the constraints the names that they had."""
    wrong = {place: name for place, name in _not_nulls(cursor).items() if names.get(place, name) != name}
    if not wrong:
        return
    cursor.execute(_PARTITIONS)
    partitions = cursor.fetchall()
    rename = sql.SQL("ALTER TABLE {} RENAME CONSTRAINT {} TO {}")
    for detach, _ in partitions:
        cursor.execute(detach)
    for (table, column), name in wrong.items():
        cursor.execute(rename.format(sql.SQL(table), sql.Identifier(name), sql.Identifier(names[table, column])))
    for _, attach in partitions:
        cursor.execute(attach)
