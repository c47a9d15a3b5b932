"""Reads what a cluster of Citus has: its nodes, and the sizes and rows of the tables that are distributed over them.

The tables on the coordinator are empty shells, so each node is asked for its shards, all of them in one statement. A
node that does not answer is named, and what the others have is summed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mlops_db.admin.cluster.shards import ASK_NODES, Shard, read_shards
from mlops_db.errors import printable
from mlops_db.server.citus import list_distributed_tables, list_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlops_db.server.cursor import SafeCursor

# What a node that is down may cost. A node that is merely slow to answer needs less.
CONNECT_TIMEOUT = "500ms"
# All nodes are connected to by then, or given up: who cancels before it can crash a server with Citus 14.0.
ANSWER_MS = 3_000
MOST_MODELS = 3

VERSION = "(SELECT extversion FROM pg_extension WHERE extname = 'citus')"
# A shard has the models whose names have these hashes.
_MODELS = f"""
    SELECT model_name FROM mlops_internal.metric_series
     WHERE worker_hash(model_name) BETWEEN %s AND %s
     GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {MOST_MODELS}
"""
# How many shards each node has, counting those of several tables with the same models once.
_PLACES = """
    SELECT n.nodename, n.nodeport, count(DISTINCT (s.shardminvalue, d.colocationid))
      FROM pg_dist_placement AS p JOIN pg_dist_shard AS s USING (shardid)
      JOIN pg_dist_partition AS d ON d.logicalrelid = s.logicalrelid AND d.partmethod = 'h'
      JOIN pg_dist_node AS n USING (groupid)
     GROUP BY 1, 2
"""
_NO_ANSWER = "no answer in time"


@dataclass(frozen=True)
class NodeStatus:
    """A node of the cluster.

    Attributes:
        address: its host and port, as the other nodes connect to it.
        is_coordinator: whether it is the coordinator.
        is_active: whether it takes part.
        shards: how many shards are there; those of several tables with the same models are one.
        bytes: their size with indexes and TOAST; None if the node did not answer.
        size: the same as text, such as `24 kB`.
        trouble: why it did not answer; None if it did, or if it does not take part.
    """

    address: str
    is_coordinator: bool
    is_active: bool
    shards: int
    bytes: int | None
    size: str | None
    trouble: str | None


@dataclass(frozen=True)
class TableStatus:
    """A distributed table, as its shards have it.

    Attributes:
        name: its name with its schema.
        shards: how many shards it has.
        rows: how many rows there are, as the planners of the nodes estimate.
        bytes: its size with indexes and TOAST.
        size: the same as text.
    """

    name: str
    shards: int
    rows: int
    bytes: int
    size: str


@dataclass(frozen=True)
class Fullest:
    """The fullest shard.

    Attributes:
        node: the node that it is on.
        bytes: its size.
        size: the same as text.
        mean_bytes: the mean of all.
        mean_size: the same as text.
        shards: how many there are.
        models: the models in it that have the most series.
    """

    node: str
    bytes: int
    size: str
    mean_bytes: int
    mean_size: str
    shards: int
    models: tuple[str, ...]


@dataclass(frozen=True)
class ClusterStatus:
    """What a database with Citus has.

    Attributes:
        version: of Citus.
        nodes: the coordinator first; empty if nothing is distributed.
        tables: the distributed tables; empty if nothing is distributed, or if no node answered in time.
        complete: whether all nodes with shards answered, so that the sums have everything.
        fullest: the fullest shard; None if not all nodes answered.
    """

    version: str
    nodes: tuple[NodeStatus, ...] = ()
    tables: tuple[TableStatus, ...] = ()
    complete: bool = True
    fullest: Fullest | None = None

    def find_table(self, name: str) -> TableStatus | None:
        """The distributed table of this name, with its schema."""
        return next((table for table in self.tables if table.name == name), None)


class Reader(Protocol):
    """Runs queries that may take long, or fail, in the time that is left."""

    cursor: SafeCursor

    def read(
        self, query: str, *parameters: object, least_ms: int = ...
    ) -> tuple[list[tuple[Any, ...]] | None, str | None]:
        """The query's rows; or None and the server's reason."""


def read_cluster(reader: Reader, version: str) -> ClusterStatus:
    """Read what the cluster has.

    Args:
        reader: of the coordinator.
        version: of Citus.
    """
    cursor = reader.cursor
    tables = list_distributed_tables(cursor)
    if not tables:
        return ClusterStatus(version)
    cursor.execute("SET LOCAL citus.node_connection_timeout = %s", (CONNECT_TIMEOUT,))
    answers, trouble = reader.read(ASK_NODES, least_ms=ANSWER_MS)
    nodes, shards = _read_answers(cursor, answers or [], trouble)
    sums = []
    for table in tables if shards else ():
        name = table.qualified_name
        own = [shard for shard in shards if shard.table == name]
        size = sum(shard.bytes for shard in own)
        sums.append(TableStatus(name, table.shards, sum(shard.rows for shard in own), size, _pretty(cursor, size)))
    complete = all(node.bytes is not None for node in nodes if node.shards)
    return ClusterStatus(
        version,
        tuple(nodes),
        tuple(sums),
        complete,
        _find_fullest(reader, shards) if complete and shards else None,
    )


def _read_answers(
    cursor: SafeCursor, answers: Iterable[tuple[Any, ...]], trouble: str | None
) -> tuple[list[NodeStatus], list[Shard]]:
    """The nodes, and the shards of those that answered."""
    answered = {address: (success, result) for address, success, result in answers}
    cursor.execute(_PLACES)
    places = {f"{host}:{port}": count for host, port, count in cursor.fetchall()}
    nodes: list[NodeStatus] = []
    shards: list[Shard] = []
    for node in list_nodes(cursor):
        size, text, why = None, None, None
        success, result = answered.get(node.address, (False, trouble or _NO_ANSWER))
        if success:
            own = read_shards(node.address, success, result)
            shards += own
            size = sum(shard.bytes for shard in own)
            text = _pretty(cursor, size)
        elif node.is_active:
            why = printable(" ".join(result.split()))
        nodes.append(
            NodeStatus(node.address, node.is_coordinator, node.is_active, places.get(node.address, 0), size, text, why)
        )
    return nodes, shards


def _find_fullest(reader: Reader, shards: list[Shard]) -> Fullest:
    sizes: defaultdict[tuple[str, int, int], int] = defaultdict(int)
    for shard in shards:
        sizes[shard.node, shard.first_hash, shard.last_hash] += shard.bytes
    (node, first, last), size = max(sizes.items(), key=lambda item: item[1])
    models, _ = reader.read(_MODELS, first, last, least_ms=ANSWER_MS)
    names = tuple(name for (name,) in models or [])
    mean = sum(sizes.values()) // len(sizes)
    return Fullest(node, size, _pretty(reader.cursor, size), mean, _pretty(reader.cursor, mean), len(sizes), names)


def _pretty(cursor: SafeCursor, size: int) -> str:
    return str(cursor.value("SELECT pg_size_pretty(%s::bigint)", (size,)))
