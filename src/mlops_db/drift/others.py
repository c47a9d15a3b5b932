"""Separates our objects from others': objects that no revision creates, and grants to roles that no revision names.

Others' objects are listed and left alone. So are grants, but not those that a reader or a writer needs: these are
declared. Parts of our objects, such as an index on a table, objects with one of our names, and everything in
mlops_internal are ours: an unexpected object there is a difference.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from mlops_db.drift.catalogue import OPTION, VIEWS, grants_of, split_grant
from mlops_db.drift.declared_roles import ON_SHARDS, Privilege, find_kind
from mlops_db.errors import printable
from mlops_db.project import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.drift.catalogue import Catalogue, Name


class Dependent(NamedTuple):
    """Something that keeps a relation, a column or a constraint from being dropped.

    Attributes:
        on: the qualified relation.
        part: the column or the constraint of it; empty for the relation itself.
        within: its qualified name, or that of the relation that it is a part of.
        what: its kind and name for people, such as `view public.report`.
    """

    on: str
    part: str
    within: str
    what: str


def divide(expected: Catalogue, found: Catalogue) -> tuple[Catalogue, Catalogue]:
    """Divide the found objects into ours and others'."""
    names = {_whole(name) for name in expected}
    ours: Catalogue = {}
    theirs: Catalogue = {}
    for name, properties in found.items():
        owner = properties.get("owned by", "").rpartition(".")[0]
        whole = _whole(name)
        mine = whole in names or owner in names or whole.partition(".")[0] == "mlops_internal"
        (ours if mine else theirs)[name] = properties
    return ours, theirs


def with_their_grants(expected: Catalogue, ours: Catalogue) -> Catalogue:
    """What is expected, plus the grants to roles: the revisions do not decide who may use the database."""
    result = dict(expected)
    for name, properties in expected.items():
        found, wanted = ours.get(name, {}), grants_of(properties)
        both = wanted | {grant for grant in grants_of(found) if not grant.endswith(" TO PUBLIC")}
        both = {grant for grant in both if grant + OPTION not in both}
        if both != wanted:
            same = both == grants_of(found)  # which the server may sort otherwise
            result[name] = {**properties, "grants": found["grants"] if same else "\n".join(sorted(both))}
    return result


def lines(expected: Catalogue, ours: Catalogue, theirs: Catalogue) -> list[str]:
    """Others' objects and the grants to others, one line an object or a role."""
    return [
        *(
            f"theirs: {printable(str(name))}"
            for name, properties in theirs.items()
            if not name.within and "owned by" not in properties  # a sequence goes with its table
        ),
        *(
            printable(f"theirs: grants to {role} on {', '.join(names)}")
            for role, names in sorted(_granted_beyond(expected, ours).items())
        ),
    ]


def read_dependents(cursor: Cursor) -> list[Dependent]:
    """What depends on the relations of our schemas, their columns and constraints, ours and others'."""
    cursor.execute(_DEPENDENTS)
    return [Dependent(*row) for row in cursor.fetchall()]


def _granted_beyond(expected: Catalogue, ours: Catalogue) -> Mapping[str, list[str]]:
    """The objects on which each role has more than the revisions grant, and than its kind of role needs."""
    found: defaultdict[str, list[tuple[Name, Privilege, str]]] = defaultdict(list)
    for name, properties in ours.items():
        wanted = grants_of(expected.get(name, {}))
        for grant in sorted(grants_of(properties) - wanted):
            privilege, role = split_grant(grant)
            if role != "PUBLIC" and grant.removesuffix(OPTION) + OPTION not in wanted:
                found[role].append((name, _privilege(privilege, name), grant))
    beyond = {}
    for role, granted in found.items():
        kind = find_kind(privilege for _, privilege, _ in granted)
        names = [
            str(name)
            for name, privilege, grant in granted
            if kind is None or not (kind.allows(privilege) or privilege == ON_SHARDS) or grant.endswith(OPTION)
        ]
        if names:
            beyond[role] = list(dict.fromkeys(names))
    return beyond


def _privilege(privilege: str, name: Name) -> Privilege:
    if name.kind == "column":
        return Privilege(privilege, "table", name.within, name.name)
    kind = "table" if name.kind in VIEWS else name.kind
    return Privilege(privilege, kind, name.name.partition("(")[0] if kind == "function" else name.name)


def _whole(name: Name) -> str:
    return name.within or name.name


_QUALIFIED = "quote_ident({0}.relnamespace::regnamespace::text) || '.' || quote_ident({0}.relname)"
# A view depends on what its rule reads; a foreign key on the index of the constraint that it refers to.
_DEPENDENTS = f"""
    WITH targets AS (
        SELECT 'pg_class'::regclass AS class, c.oid, c.oid AS relation, NULL AS part FROM pg_class AS c
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
         UNION ALL
        SELECT 'pg_type'::regclass, row.oid, c.oid, NULL FROM pg_class AS c JOIN pg_type AS t ON t.oid = c.reltype
         CROSS JOIN LATERAL unnest(ARRAY[t.oid, t.typarray]) AS row (oid)
         UNION ALL
        SELECT 'pg_class'::regclass, k.conindid, k.conrelid, quote_ident(k.conname) FROM pg_constraint AS k
         WHERE k.contype IN ('p', 'u', 'x')
         UNION ALL
        SELECT 'pg_constraint'::regclass, k.oid, k.conrelid, quote_ident(k.conname) FROM pg_constraint AS k
         WHERE k.conrelid <> 0
    )
    SELECT DISTINCT {_QUALIFIED.format("c")}, coalesce(target.part, quote_ident(a.attname), ''),
           coalesce({_QUALIFIED.format("holder")}, o.identity),
           CASE WHEN v.oid IS NULL THEN replace(o.type, 'table constraint', 'constraint') || ' ' || o.identity
                ELSE CASE v.relkind WHEN 'm' THEN 'materialized view ' WHEN 'v' THEN 'view ' ELSE 'rule on ' END
                     || {_QUALIFIED.format("v")} END
      FROM targets AS target
      JOIN pg_class AS c ON c.oid = target.relation AND c.relnamespace IN (
               SELECT oid FROM pg_namespace WHERE nspname = ANY(ARRAY{[*SCHEMAS]}))
      JOIN pg_depend AS d ON d.refclassid = target.class AND d.refobjid = target.oid AND d.deptype = 'n'
      LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
                                 AND d.refclassid = 'pg_class'::regclass
      LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      LEFT JOIN pg_class AS v ON v.oid = r.ev_class
      LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
      LEFT JOIN pg_policy AS y ON d.classid = 'pg_policy'::regclass AND y.oid = d.objid
      LEFT JOIN pg_attrdef AS e ON d.classid = 'pg_attrdef'::regclass AND e.oid = d.objid
      LEFT JOIN pg_trigger AS g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
      LEFT JOIN pg_class AS holder ON holder.oid = coalesce(
               r.ev_class, k.conrelid, y.polrelid, e.adrelid, g.tgrelid,
               CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid END)
     CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS o
     ORDER BY 1, 2, 4
"""
