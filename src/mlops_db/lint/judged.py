"""Which tables the rules judge, and fill with rows: not those that runs keep, and no copy that revisions are filling.

The rows of such a copy are those of its source. So it takes no others, and none of them can be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.migration.guard.table_copies import read_copies
from mlops_db.revisions.tables import RUN_TABLES

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

# A condition for pg_class AS c and pg_namespace AS n, with the result of `read_unjudged` as %(unjudged)s.
IS_JUDGED = f"""
    n.nspname || '.' || c.relname <> ALL (ARRAY{[*RUN_TABLES, "mlops_internal.table_copies"]})
       AND coalesce(pg_partition_root(c.oid)::oid, c.oid) <> ALL (%(unjudged)s::oid[])
"""


def read_unjudged(cursor: Cursor) -> list[int]:
    """Read which tables are a copy now, or the log of its changes, by oid."""
    return [oid for copy in read_copies(cursor) for oid in (copy.copy, copy.changes) if oid is not None]
