"""Reads Citus' own catalogue: whether this is a node of a cluster, which nodes there are, and what is distributed.

Nothing of it is stored anywhere else. A database without the extension has no nodes and no distributed tables. The
catalogue is in schema pg_catalog, where only a superuser can create objects, so nobody else can imitate it.
"""

import re
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import WorkerNodeError

# A condition of SQL: whether the database has the extension.
HAS_CITUS = "to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL"
# Where Citus names a node in its messages; a host may be the folder of a socket.
NODE = re.compile(
    r"(?:remote node .*?@|to the node |for node |essential: |on host |(?:command|transaction|shard \d+|COPY) on )"
    r"(\S+:\d+)"
)
# The session's lock_timeout bounds waits on the workers, too, until the transaction ends. Citus ends what they do at
# the statement_timeout, but each waits for locks as its own lock_timeout says. Only SET LOCAL gets there, if a setting
# of Citus says so; other SETs are for this node alone. Citus sends the text of the whole message, which within DO is
# this statement alone.
BOUND_WAITS_ON_WORKERS = f"""\
DO $waits$ BEGIN
    IF {HAS_CITUS} AND pg_catalog.current_setting('lock_timeout') <> '0' THEN
        SET LOCAL citus.propagate_set_commands = 'local';
        EXECUTE 'SET LOCAL lock_timeout = ' || pg_catalog.quote_literal(pg_catalog.current_setting('lock_timeout'));
        SET LOCAL citus.propagate_set_commands = 'none';
    END IF;
END $waits$;"""


class Node(NamedTuple):
    """A server of the cluster.

    Attributes:
        host: its host, as the other nodes connect to it.
        port: its port.
        is_coordinator: whether it is the coordinator, which clients connect to.
        is_active: whether it takes part.
        has_shards: whether shards may be there.
    """

    host: str
    port: int
    is_coordinator: bool
    is_active: bool
    has_shards: bool

    @property
    def address(self) -> str:
        """Host and port, as messages name it."""
        return f"{self.host}:{self.port}"


class DistributedTable(NamedTuple):
    """A table whose rows are in shards; the partitions of a distributed table are not listed.

    Attributes:
        schema: its schema.
        name: its name.
        column: the column whose hash says in which shard a row is.
        colocation: tables with the same number have the rows of the same values on the same nodes.
        shards: how many shards it has.
    """

    schema: str
    name: str
    column: str
    colocation: int
    shards: int

    @property
    def qualified_name(self) -> str:
        """Schema and name."""
        return f"{self.schema}.{self.name}"


def has_citus(cursor: Cursor) -> bool:
    """Whether the database has the extension."""
    cursor.execute(f"SELECT {HAS_CITUS}")
    return cursor.fetchone() == (True,)


def list_nodes(cursor: Cursor) -> list[Node]:
    """The nodes that the database knows, the coordinator first; none without Citus, and none before one was added."""
    if not has_citus(cursor):
        return []
    cursor.execute(
        "SELECT nodename, nodeport, groupid = 0, isactive, shouldhaveshards FROM pg_catalog.pg_dist_node"
        " WHERE noderole = 'primary' ORDER BY groupid"
    )
    return [Node(*row) for row in cursor.fetchall()]


def refuse_worker(cursor: Cursor, target: str) -> None:
    """Refuse a worker: a node of a cluster other than its coordinator.

    Raises:
        WorkerNodeError: it is one; the hint names the coordinator, if a node knows it.
    """
    if not has_citus(cursor):
        return
    cursor.execute("SELECT groupid > 0 FROM pg_catalog.pg_dist_local_group")
    if cursor.fetchone() == (True,):
        coordinator = next((node.address for node in list_nodes(cursor) if node.is_coordinator), None)
        raise WorkerNodeError(target, coordinator)


def list_distributed_tables(cursor: Cursor) -> list[DistributedTable]:
    """The distributed tables, by schema and name; none without Citus."""
    if not has_citus(cursor):
        return []
    cursor.execute(
        "SELECT n.nspname, c.relname, pg_catalog.column_to_column_name(d.logicalrelid, d.partkey), d.colocationid,"
        "       (SELECT count(*) FROM pg_catalog.pg_dist_shard AS s WHERE s.logicalrelid = d.logicalrelid)"
        "  FROM pg_catalog.pg_dist_partition AS d JOIN pg_class AS c ON c.oid = d.logicalrelid"
        "  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE NOT c.relispartition AND d.partmethod = 'h' ORDER BY 1, 2"
    )
    return [DistributedTable(*row) for row in cursor.fetchall()]


def list_tables_of_citus(cursor: Cursor) -> list[tuple[str, str]]:
    """Schema and name of all tables that Citus has in any way, also as reference tables; none without Citus."""
    if not has_citus(cursor):
        return []
    cursor.execute(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_dist_partition AS d"
        "  JOIN pg_class AS c ON c.oid = d.logicalrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE NOT c.relispartition ORDER BY 1, 2"
    )
    return cursor.fetchall()
