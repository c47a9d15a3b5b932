"""Which tables are distributed, by what, and how they are now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlops_db.admin.cluster.shards import ASK_NODES, read_shards
from mlops_db.errors import RefusedError
from mlops_db.server.citus import has_citus, list_distributed_tables

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

COLUMN = "model_name"
# In the order in which they are distributed; the second one lies beside the first.
SERIES, METRICS = "mlops_internal.metric_series", "public.monitoring_metrics"
DISTRIBUTED = (SERIES, METRICS)
SHARDS_A_NODE = 4
MAX_SHARDS = 1024

# The two tables with their months.
TREE = f"""
    tree (oid) AS (
        SELECT '{SERIES}'::regclass::oid
         UNION ALL
        SELECT relid::oid FROM pg_partition_tree('{METRICS}')
    )
"""
_METHODS = """
    SELECT n.nspname || '.' || c.relname, CASE WHEN d.partmethod <> 'n' THEN 'in other shards'
           WHEN d.repmodel = 't' THEN 'a reference table' WHEN d.colocationid = 0 THEN 'managed by Citus on this node'
           ELSE 'in a single shard' END
      FROM pg_catalog.pg_dist_partition AS d
      JOIN pg_class AS c ON c.oid = d.logicalrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = ANY (%s::regclass[]) AND d.partmethod <> 'h'
"""
# Rows by the statistics.
_PLAIN_ROWS = f"""
    WITH {TREE}
    SELECT coalesce(sum(greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)), 0)::bigint,
           coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
      FROM tree JOIN pg_class AS c ON c.oid = tree.oid WHERE c.relkind = 'r'
"""


class Layout(NamedTuple):
    """How the two tables are.

    Attributes:
        shards: how many shards the distributed ones have; None if none is distributed.
        distributed: which of them are.
    """

    shards: int | None
    distributed: tuple[str, ...]

    @property
    def left(self) -> list[str]:
        """Those that are not distributed."""
        return [table for table in DISTRIBUTED if table not in self.distributed]


def read_layout(cursor: Cursor) -> Layout:
    """Read from Citus' catalogue which of the two tables are distributed.

    Raises:
        RefusedError: they are distributed in another way.
    """
    if not has_citus(cursor):
        return Layout(None, ())
    cursor.execute(_METHODS, (list(DISTRIBUTED),))
    others = {name: f"{name} is {how}" for name, how in cursor}
    tables = {table.qualified_name: table for table in list_distributed_tables(cursor)}
    found = {name: table for name, table in tables.items() if name in DISTRIBUTED}
    wrong = [
        *others.values(),
        *(f"{name} is by {table.column}" for name, table in found.items() if table.column != COLUMN),
    ]
    if len({table.colocation for table in found.values()}) > 1:
        wrong.append("the two tables are not colocated")
    if wrong:
        raise RefusedError(
            f"the tables are distributed in another way than by {COLUMN}: {', '.join(wrong)}; nothing was changed",
            hint="Bring them back by hand first: "
            + " ".join(f"SELECT undistribute_table('{name}');" for name in DISTRIBUTED if name in {**found, **others})
            + " Comments and grants that this loses are in `mlops-db check --sql`.",
        )
    return Layout(next((table.shards for table in found.values()), None), tuple(found))


def count_rows(cursor: Cursor, layout: Layout) -> tuple[int, int]:
    """How many rows the two tables have, by the statistics, and how many bytes."""
    if layout.distributed:
        cursor.execute(ASK_NODES)
        shards = [shard for answer in cursor.fetchall() for shard in read_shards(*answer) if shard.table in DISTRIBUTED]
        return sum(shard.rows for shard in shards), sum(shard.bytes for shard in shards)
    cursor.execute(_PLAIN_ROWS)
    ((rows, size),) = cursor.fetchall()
    return rows, size
