"""Reads who owns our objects, and who should: a copy that was restored without owners belongs to the restoring role."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlops_db.drift.catalogue import IDENTITY, Catalogue, Name, own
from mlops_db.project import SCHEMAS
from mlops_db.revisions.tables import VERSION_TABLE

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)


@dataclass(frozen=True)
class Owners:
    """The owners of the objects that can have one.

    Attributes:
        expected: the role that should own our objects, quoted where SQL needs it; None for any role.
        reader: the role that runs the command; most likely it also runs the repair.
        found: the owner of each object.
        parents: the partitioned table of each partition.
    """

    expected: str | None = None
    reader: str | None = None
    found: dict[Name, str] = field(default_factory=dict)
    parents: dict[Name, str] = field(default_factory=dict)

    def wrong(self, expected: Catalogue) -> dict[Name, str]:
        """Our objects, partitions included, that another role owns, each with that role."""
        if self.expected is None:
            return {}
        tables = {name.name for name in expected if name.kind == "table"}
        return {
            name: owner
            for name, owner in self.found.items()
            if owner != self.expected and (name in expected or self.parents.get(name) in tables)
        }


def read_owners(cursor: Cursor, owner_role: str | None) -> Owners:
    """Read the owners of the objects in our schemas.

    Args:
        cursor: of a connection whose search path makes every name come out qualified, as `read_catalogue` leaves it.
        owner_role: the role that should own our objects, from the settings. By default it is the owner of the database.
            But it is the owner of alembic_version if a superuser owns the database, or if that owner is connected
            and no superuser.
    """
    cursor.execute(_EXPECTED, {"owner_role": owner_role})
    expected, reader = cursor.fetchone() or (None, None)
    cursor.execute(_FOUND, {"schemas": list(SCHEMAS)})
    found, parents = {}, {}
    for kind, name, owner, parent in cursor.fetchall():
        found[Name(kind, "", name)] = owner
        if parent is not None:
            parents[Name(kind, "", name)] = parent
    return Owners(expected, reader, found, parents)


_EXPECTED = f"""
    SELECT quote_ident(coalesce(%(owner_role)s, (
               SELECT CASE WHEN recorded.rolname = current_user AND NOT recorded.rolsuper OR holder.rolsuper
                           THEN recorded.rolname ELSE holder.rolname END
                 FROM pg_database AS d
                 JOIN pg_roles AS holder ON holder.oid = d.datdba
                 JOIN pg_class AS c ON c.oid = to_regclass('{VERSION_TABLE}')
                 JOIN pg_roles AS recorded ON recorded.oid = c.relowner
                WHERE d.datname = current_database()))), quote_ident(current_user)
"""
# The sequence of a column has the owner of the table.
_FOUND = f"""
    SELECT 'schema', quote_ident(n.nspname), quote_ident(pg_get_userbyid(n.nspowner)), NULL
      FROM pg_namespace AS n WHERE {own("n.oid")} AND n.nspname <> 'public'
     UNION ALL
    (SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
                           ELSE 'table' END,
            quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(pg_get_userbyid(c.relowner)),
            i.inhparent::regclass::text
       FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
       LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND c.relispartition
      WHERE {own("c.oid")} AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
        AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                                     AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
      ORDER BY c.relkind, c.oid)
     UNION ALL
    (SELECT 'function', quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || {IDENTITY} || ')',
            quote_ident(pg_get_userbyid(p.proowner)), NULL
       FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE {own("p.oid")} ORDER BY p.oid)
     UNION ALL
    SELECT 'type', quote_ident(n.nspname) || '.' || quote_ident(t.typname),
           quote_ident(pg_get_userbyid(t.typowner)), NULL
      FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
     WHERE {own("t.oid")} AND t.typtype IN ('d', 'e')
"""
