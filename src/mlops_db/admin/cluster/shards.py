"""Asks each node for its shards: their sizes and rows, which the empty tables on the coordinator do not have."""

from __future__ import annotations

import json
from typing import NamedTuple

# On each node. Shards of a partitioned table have no rows of their own: those of its partitions are listed.
_SHARDS = """
    SELECT coalesce(json_agg(json_build_array(
               rn.nspname || '.' || root.relname, pn.nspname || '.' || part.relname, s.shardminvalue::bigint,
               s.shardmaxvalue::bigint, pg_total_relation_size(c.oid),
               greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint
           )), '[]')
      FROM pg_dist_local_group AS here
      JOIN pg_dist_placement AS p ON p.groupid = here.groupid
      JOIN pg_dist_shard AS s ON s.shardid = p.shardid
      JOIN pg_class AS part ON part.oid = s.logicalrelid
      JOIN pg_namespace AS pn ON pn.oid = part.relnamespace
      JOIN pg_class AS root ON root.oid = coalesce(pg_partition_root(part.oid), part.oid)
      JOIN pg_namespace AS rn ON rn.oid = root.relnamespace
      JOIN pg_class AS c ON c.oid = to_regclass(shard_name(s.logicalrelid, s.shardid, false)) AND c.relkind = 'r'
     WHERE s.shardminvalue IS NOT NULL
"""
# Each node's address, whether it answered, and its answer or the reason why there is none.
ASK_NODES = f"""
    SELECT n.nodename || ':' || n.nodeport, a.success, a.result
      FROM pg_catalog.run_command_on_all_nodes($command${_SHARDS}$command$) AS a
      JOIN pg_catalog.pg_dist_node AS n ON n.nodeid = a.nodeid
"""


class Shard(NamedTuple):
    """The part of a shard that one partition has.

    Attributes:
        node: the address of its node.
        table: the distributed table, with its schema.
        partition: its partition, with its schema; the table itself if it has none.
        first_hash: the least hash that the shard has.
        last_hash: the greatest.
        bytes: its size with indexes and TOAST.
        rows: how many rows it has, by the statistics.
    """

    node: str
    table: str
    partition: str
    first_hash: int
    last_hash: int
    bytes: int
    rows: int


def read_shards(node: str, success: bool, answer: str) -> list[Shard]:  # noqa: FBT001  (a row of `ASK_NODES`)
    """The shards of a node, by its answer; none if it did not answer."""
    return [Shard(node, *values) for values in json.loads(answer)] if success else []
