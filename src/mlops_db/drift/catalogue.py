"""Reads the objects of our schemas from the system catalogue, with their properties.

It leaves out what the revisions do not decide: owners, tablespaces, oids, statistics, the owner's own privileges, and
how far batches are. Expressions have one form: PostgreSQL returns some in another form after a dump was restored, or
if an earlier version made them. A function that `mlops-db distribute` rewrote is read as it was.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.project import SCHEMAS
from mlops_db.revisions.tables import POSITIONS_TABLE, RUNNING_CODE_TABLE
from mlops_db.server.acl import TO_GRANTEE
from mlops_db.server.connection import open_cursor
from mlops_db.server.distributable import unwrap
from mlops_db.server.guests import SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.settings import Settings

OPTION = " WITH GRANT OPTION"
VIEWS = ("view", "materialized view")


@dataclass(frozen=True)
class Name:
    """The name of an object.

    Attributes:
        kind: `table`, `column`, `constraint`, `index`, `view`, `materialized view`, `function`, `trigger`, `sequence`,
            `type`, `schema`, `extension`, `policy` or `rule`.
        within: the qualified table or view that it is a part of; empty if it is not a part.
        name: quoted where SQL needs it, and qualified if it is not a part.
    """

    kind: str
    within: str
    name: str

    def __str__(self) -> str:
        """As messages have it: `constraint x_pkey on public.x`, `column public.x.id`."""
        if self.kind == "column":
            return f"column {self.within}.{self.name}"
        return f"{self.kind} {self.name}{f' on {self.within}' if self.within else ''}"

    @property
    def table(self) -> Name:
        """The table that it is a part of."""
        return Name("table", "", self.within)

    @property
    def wholes(self) -> list[Name]:
        """The table or view that it is a part of, by each kind that this can have."""
        return [Name(kind, "", self.within) for kind in ("table", *VIEWS)]


Properties = dict[str, str]
# In the order in which the objects were made, kind by kind. A property that is not set is left out.
Catalogue = dict[Name, Properties]


@contextmanager
def reading(settings: Settings) -> Iterator[Cursor]:
    """A cursor in one read-only transaction, so that everything is read as of one moment.

    Raises:
        ConnectionFailedError: no connection.
        MlopsDbError: the server refused a statement of the block.
    """
    with open_cursor(settings, isolation_level="REPEATABLE READ", readonly=True) as cursor:
        yield cursor


def read_catalogue(cursor: Cursor) -> Catalogue:
    """Read the objects of our schemas. Sets the transaction's search path, so that every name comes out qualified."""
    cursor.execute(f"SET LOCAL search_path = {SAFE_PATH}")
    found: Catalogue = {}
    for query in _QUERIES:
        cursor.execute(query, {"schemas": list(SCHEMAS)})
        for kind, within, name, properties in cursor.fetchall():
            # Runs make both when they need them.
            if POSITIONS_TABLE not in (within, name) and (within, name) != (RUNNING_CODE_TABLE, "others"):
                found[Name(kind, within, name)] = {
                    key: restored(unwrap(value)) if key in _EXPRESSIONS else value for key, value in properties.items()
                }
    return found


_EXPRESSIONS = ("definition", "default", "generated", "domain")
# PostgreSQL 13 writes a call where later ones write AT TIME ZONE. A copy restored from 13 has the call, too.
_AT_TIME_ZONE = re.compile(r"""\(((?:[\w.]|"[^"]*")+) AT TIME ZONE ('[^']*'::text)\)""")
# A list of varchars is converted as a whole; restored, one by one.
_LIST = re.compile(r"""(\()?ARRAY\[((?:'(?:[^']|'')*'::character varying(?:, )?)+)\](?(1)\))::text\[\]""")
_LISTED = re.compile(r"'(?:[^']|'')*'::character varying")


def restored(expression: str) -> str:
    """The expression as PostgreSQL reads it back after a dump, for all versions."""
    called = _AT_TIME_ZONE.sub(r"timezone(\2, \1)", expression)
    return _LIST.sub(lambda found: f"ARRAY[{_one_by_one(found[2], parentheses=found[1] is not None)}]", called)


def _one_by_one(listed: str, *, parentheses: bool) -> str:
    """A view has no parentheses: its definition is read in the pretty form."""
    return _LISTED.sub(r"(\g<0>)::text" if parentheses else r"\g<0>::text", listed)


def grants_of(properties: Properties) -> set[str]:
    """The grants among the properties of an object, such as `SELECT TO reader WITH GRANT OPTION`."""
    return set(filter(None, properties.get("grants", "").split("\n")))


def split_grant(grant: str) -> tuple[str, str]:
    """The privilege and the role of a grant."""
    privilege, _, role = grant.removesuffix(OPTION).partition(" TO ")
    return privilege, role


def _grants(acl: str, owner: str) -> str:
    """SQL for the grants to others than the owner, one a line."""
    return f"""
        (SELECT string_agg(acl.privilege_type || {TO_GRANTEE}, E'\\n'
                    ORDER BY acl.privilege_type, acl.grantee::regrole::text)
           FROM aclexplode({acl}) AS acl WHERE acl.grantee <> {owner})"""


def own(oid: str) -> str:
    """SQL for the condition that an object is in one of our schemas, and not part of an extension."""
    return f"""
        n.nspname = ANY(%(schemas)s)
        AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = {oid} AND e.deptype = 'e')"""


def _bounds(oid: str) -> str:
    """SQL for the lower and the upper end of each partition by range, as text."""
    return f"""(
        SELECT regexp_match(pg_get_expr(part.relpartbound, part.oid),
                            '^FOR VALUES FROM \\((.*)\\) TO \\((.*)\\)$') AS bounds
          FROM pg_inherits AS i JOIN pg_class AS part ON part.oid = i.inhrelid WHERE i.inhparent = {oid})"""


# Which months exist depends on the calendar and on the rows, also in the copy that revisions fill. Columns and
# constraints of a month are its table's. to_regclass() would fail for a role that may not use mlops_internal.
_NO_MONTH = """
    NOT EXISTS (SELECT FROM pg_inherits AS m
                  JOIN pg_class AS t ON t.oid = m.inhparent JOIN pg_namespace AS s ON s.oid = t.relnamespace
                 WHERE m.inhrelid = c.oid AND (s.nspname, t.relname) IN (
                           ('public', 'monitoring_metrics'), ('mlops_internal', 'monitoring_metrics_copy')))
"""
# PostgreSQL 14 and later write IN for the arguments of a procedure, earlier versions do not.
IDENTITY = r"regexp_replace(pg_get_function_identity_arguments(p.oid), '(^|, )IN ', '\1', 'g')"
_DEFINITION = r"""
    replace(pg_get_functiondef(p.oid), '(' || pg_get_function_arguments(p.oid) || ')',
            '(' || regexp_replace(pg_get_function_arguments(p.oid), '(^|, )IN ', '\1', 'g') || ')')
"""
_RELATION = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
_CLASS = "pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"

_QUERIES: tuple[str, ...] = (
    """
    SELECT 'extension', '', quote_ident(extname), '{}'::jsonb FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY oid
    """,
    f"""
    SELECT 'schema', '', quote_ident(n.nspname), jsonb_strip_nulls(jsonb_build_object(
               'comment', obj_description(n.oid, 'pg_namespace'),
               'grants', {_grants("coalesce(n.nspacl, acldefault('n', n.nspowner))", "n.nspowner")}))
      FROM pg_namespace AS n WHERE {own("n.oid")} AND n.nspname <> 'public' ORDER BY n.oid
    """,
    f"""
    SELECT 'type', '', quote_ident(n.nspname) || '.' || quote_ident(t.typname), jsonb_strip_nulls(jsonb_build_object(
               'labels', (SELECT string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder)
                            FROM pg_enum AS l WHERE l.enumtypid = t.oid),
               'domain', CASE WHEN t.typtype = 'd' THEN concat_ws(' ',
                             format_type(t.typbasetype, t.typtypmod),
                             'DEFAULT ' || t.typdefault, CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                             (SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname)
                                FROM pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c')) END,
               'attributes', (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod),
                                                ', ' ORDER BY a.attnum)
                                FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
                               WHERE c.oid = t.typrelid AND c.relkind = 'c' AND a.attnum > 0 AND NOT a.attisdropped),
               'comment', obj_description(t.oid, 'pg_type')))
      FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
     WHERE {own("t.oid")}
       AND (t.typtype IN ('d', 'e') OR (t.typtype = 'c' AND EXISTS (
               SELECT FROM pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c')))
     ORDER BY t.oid
    """,
    f"""
    SELECT 'sequence', '', {_RELATION}, jsonb_strip_nulls(jsonb_build_object(
               'definition', format('AS %%s START %%s INCREMENT %%s MINVALUE %%s MAXVALUE %%s CACHE %%s%%s',
                   format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                   CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END),
               'identity', (SELECT 'yes' FROM pg_depend AS d
                             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'),
               'owned by', (SELECT d.refobjid::regclass || '.' || quote_ident(a.attname)
                              FROM pg_depend AS d
                              JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                               AND d.refclassid = 'pg_class'::regclass),
               'comment', obj_description(c.oid, 'pg_class'),
               'grants', {_grants("coalesce(c.relacl, acldefault('s', c.relowner))", "c.relowner")}))
      FROM {_CLASS} JOIN pg_sequence AS s ON s.seqrelid = c.oid WHERE {own("c.oid")} ORDER BY c.oid
    """,
    f"""
    SELECT 'table', '', {_RELATION}, jsonb_strip_nulls(jsonb_build_object(
               'foreign', CASE c.relkind WHEN 'f' THEN 'yes' END,
               'persistence', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' END,
               'partition key', pg_get_partkeydef(c.oid),
               -- Without both of them, an insert can fail because a partition is missing.
               'open ends', (SELECT string_agg(bound.open, ', ' ORDER BY bound.open DESC)
                               FROM pg_inherits AS i JOIN pg_class AS part ON part.oid = i.inhrelid
                              CROSS JOIN LATERAL unnest(ARRAY['MINVALUE', 'MAXVALUE']) AS bound (open)
                              WHERE i.inhparent = c.oid
                                AND strpos(pg_get_expr(part.relpartbound, part.oid), bound.open) > 0),
               -- It also fails between two partitions that do not meet.
               'gaps', (SELECT string_agg('before ' || later.bounds[1], ', ' ORDER BY later.bounds[1])
                          FROM {_bounds("c.oid")} AS later
                         WHERE later.bounds[1] <> 'MINVALUE'
                           AND NOT EXISTS (SELECT FROM {_bounds("c.oid")} AS earlier
                                            WHERE earlier.bounds[2] = later.bounds[1])
                           -- Otherwise one of them is the first, which has nothing to meet.
                           AND EXISTS (SELECT FROM {_bounds("c.oid")} AS first WHERE first.bounds[1] = 'MINVALUE')),
               'parents', (SELECT string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
                             FROM pg_inherits AS i WHERE i.inhrelid = c.oid),
               'partition bound', pg_get_expr(c.relpartbound, c.oid),
               'options', array_to_string(c.reloptions, ', '),
               'row level security',
                   nullif(concat_ws(', ', CASE WHEN c.relrowsecurity THEN 'ENABLE' END,
                                    CASE WHEN c.relforcerowsecurity THEN 'FORCE' END), ''),
               'replica identity', CASE WHEN c.relreplident <> 'd' THEN c.relreplident::text END,
               'comment', obj_description(c.oid, 'pg_class'),
               'grants', {_grants("coalesce(c.relacl, acldefault('r', c.relowner))", "c.relowner")}))
      FROM {_CLASS} WHERE {own("c.oid")} AND {_NO_MONTH} AND c.relkind IN ('r', 'p', 'f')
     ORDER BY c.oid
    """,
    f"""
    SELECT CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, '', {_RELATION},
           jsonb_strip_nulls(jsonb_build_object(
               'definition', pg_get_viewdef(c.oid, true),
               'reads', (SELECT string_agg(DISTINCT d.refobjid::regclass::text, ', ')
                           FROM pg_rewrite AS r
                           JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                          WHERE r.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid),
               'options', array_to_string(c.reloptions, ', '),
               'comment', obj_description(c.oid, 'pg_class'),
               'grants', {_grants("coalesce(c.relacl, acldefault('r', c.relowner))", "c.relowner")}))
      FROM {_CLASS} WHERE {own("c.oid")} AND c.relkind IN ('v', 'm') ORDER BY c.oid
    """,
    f"""
    SELECT 'column', {_RELATION}, quote_ident(a.attname), jsonb_strip_nulls(jsonb_build_object(
               'position', row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)::text,
               'type', format_type(a.atttypid, a.atttypmod),
               'collation', (SELECT a.attcollation::regcollation::text FROM pg_type AS t
                              WHERE t.oid = a.atttypid AND t.typcollation <> a.attcollation),
               'not null', CASE WHEN a.attnotnull THEN 'yes' END,
               'default', CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
               'generated', CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
               'identity', CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END,
               'comment', col_description(c.oid, a.attnum),
               'grants', {_grants("a.attacl", "c.relowner")}))
      FROM {_CLASS} JOIN pg_attribute AS a ON a.attrelid = c.oid
      LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE {own("c.oid")} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
       AND NOT c.relispartition  -- which has its columns from the partitioned table
     ORDER BY c.oid, a.attnum
    """,
    # NOT NULL is a property of its column; since PostgreSQL 18 it is listed here too.
    f"""
    SELECT 'constraint', {_RELATION}, quote_ident(k.conname), jsonb_strip_nulls(jsonb_build_object(
               'definition', pg_get_constraintdef(k.oid),
               'enforced', CASE WHEN EXISTS (SELECT FROM pg_trigger AS t
                                              WHERE t.tgconstraint = k.oid AND t.tgenabled = 'D') THEN 'no' END,
               'comment', obj_description(k.oid, 'pg_constraint')))
      FROM {_CLASS} JOIN pg_constraint AS k ON k.conrelid = c.oid
     WHERE {own("c.oid")} AND {_NO_MONTH} AND k.contype NOT IN ('n', 't')
       AND NOT (c.relispartition AND k.coninhcount > 0)
     ORDER BY array_position(ARRAY['p', 'u', 'x', 'c', 'f'], k.contype::text), k.oid
    """,
    f"""
    SELECT 'index', t.oid::regclass::text, {_RELATION}, jsonb_strip_nulls(jsonb_build_object(
               'definition', pg_get_indexdef(c.oid),
               'valid', CASE WHEN i.indisvalid AND i.indisready THEN 'yes' ELSE 'no' END,
               'options', array_to_string(c.reloptions, ', '),
               'comment', obj_description(c.oid, 'pg_class')))
      FROM {_CLASS} JOIN pg_index AS i ON i.indexrelid = c.oid JOIN pg_class AS t ON t.oid = i.indrelid
     WHERE {own("c.oid")} AND NOT c.relispartition
       AND NOT EXISTS (SELECT FROM pg_constraint AS k
                        WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
     ORDER BY c.oid
    """,
    f"""
    SELECT 'function', '', quote_ident(n.nspname) || '.' || quote_ident(p.proname)
               || '(' || {IDENTITY} || ')',
           jsonb_strip_nulls(jsonb_build_object(
               'definition', CASE WHEN p.prokind IN ('f', 'p') THEN {_DEFINITION} ELSE p.prokind::text END,
               'comment', obj_description(p.oid, 'pg_proc'),
               'grants', {_grants("coalesce(p.proacl, acldefault('f', p.proowner))", "p.proowner")}))
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE {own("p.oid")} ORDER BY p.oid
    """,
    f"""
    SELECT 'trigger', {_RELATION}, quote_ident(t.tgname), jsonb_strip_nulls(jsonb_build_object(
               'definition', pg_get_triggerdef(t.oid),
               'enabled', CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS'
                                           WHEN 'R' THEN 'ENABLE REPLICA' END,
               'comment', obj_description(t.oid, 'pg_trigger')))
      FROM {_CLASS} JOIN pg_trigger AS t ON t.tgrelid = c.oid
     WHERE {own("c.oid")} AND NOT t.tgisinternal
       -- The log of a copy has triggers on each month.
       AND ({_NO_MONTH} OR t.tgname NOT LIKE 'monitoring\\_metrics\\_log\\_%%') ORDER BY t.oid
    """,
    f"""
    SELECT 'rule', {_RELATION}, quote_ident(r.rulename), jsonb_strip_nulls(jsonb_build_object(
               'definition', pg_get_ruledef(r.oid),
               'enabled', CASE WHEN r.ev_enabled <> 'O' THEN r.ev_enabled::text END))
      FROM {_CLASS} JOIN pg_rewrite AS r ON r.ev_class = c.oid
     WHERE {own("c.oid")} AND r.rulename <> '_RETURN' ORDER BY r.oid
    """,
    f"""
    SELECT 'policy', {_RELATION}, quote_ident(p.polname), jsonb_build_object('definition', concat_ws(' ',
               CASE WHEN p.polpermissive THEN 'AS PERMISSIVE' ELSE 'AS RESTRICTIVE' END,
               'FOR ' || CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                       WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
               'TO ' || (SELECT string_agg(CASE WHEN o = 0 THEN 'PUBLIC' ELSE o::regrole::text END, ', ')
                           FROM unnest(p.polroles) AS o),
               'USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
               'WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'))
      FROM {_CLASS} JOIN pg_policy AS p ON p.polrelid = c.oid WHERE {own("c.oid")} ORDER BY p.oid
    """,
)
