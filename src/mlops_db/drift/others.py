"""What in a database is somebody else's: objects that no revision makes, and grants to a role that no revision names.

It is told and left alone. What is a part of a thing of ours, such as an index on a table, what bears its name, and
whatever is in mlops_internal counts as ours: there an object that no revision makes is a difference.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from mlops_db.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.drift.catalogue import Catalogue, Name, Properties

OUR_SCHEMA = "mlops_internal"
OPTION = " WITH GRANT OPTION"


class Dependent(NamedTuple):
    """Something that keeps a relation, a column or a constraint from being dropped.

    Attributes:
        on: the qualified relation.
        part: the column or the constraint of it; empty for the relation itself.
        within: the qualified name of what it is, or of the relation that it is a part of.
        what: how it is told, such as `view public.report`.
    """

    on: str
    part: str
    within: str
    what: str


def divide(expected: Catalogue, found: Catalogue) -> tuple[Catalogue, Catalogue]:
    """What is there that is ours, and what is somebody else's."""
    names = {_whole(name) for name in expected}
    ours: Catalogue = {}
    theirs: Catalogue = {}
    for name, properties in found.items():
        owner = properties.get("owned by", "").rpartition(".")[0]
        whole = _whole(name)
        mine = whole in names or owner in names or whole.partition(".")[0] == OUR_SCHEMA
        (ours if mine else theirs)[name] = properties
    return ours, theirs


def with_their_grants(expected: Catalogue, ours: Catalogue) -> Catalogue:
    """What is expected, plus what was granted to roles: whoever is let in is not for the revisions to say."""
    result = dict(expected)
    for name, properties in expected.items():
        there = ours.get(name, {}).get("grants", "")
        wanted = _grants(properties)
        both = wanted | {grant for grant in _grants(ours.get(name, {})) if not grant.endswith(" TO PUBLIC")}
        both = {grant for grant in both if grant + OPTION not in both}
        if both != wanted:
            same = both == set(there.split("\n"))  # which the server may sort otherwise
            result[name] = {**properties, "grants": there if same else "\n".join(sorted(both))}
    return result


def lines(expected: Catalogue, ours: Catalogue, theirs: Catalogue) -> list[str]:
    """What is somebody else's, one line a thing or a role."""
    return [
        *(
            f"theirs: {printable(str(name))}"
            for name, properties in theirs.items()
            if not name.within and "owned by" not in properties  # those go with what they are a part of
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
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for name, properties in ours.items():
        wanted = _grants(expected.get(name, {}))
        for grant in sorted(_grants(properties) - wanted):
            privilege_of, _, role = grant.removesuffix(OPTION).partition(" TO ")
            if role != "PUBLIC" and f"{privilege_of} TO {role}{OPTION}" not in wanted:
                found[role][str(name)] = None
    return {role: list(names) for role, names in found.items()}


def _grants(properties: Properties) -> set[str]:
    return set(filter(None, properties.get("grants", "").split("\n")))


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
               SELECT oid FROM pg_namespace WHERE nspname = ANY(ARRAY['public', '{OUR_SCHEMA}']))
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
