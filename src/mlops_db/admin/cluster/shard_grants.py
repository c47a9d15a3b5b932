"""What a reader needs on the nodes that have the shards.

A view runs with its owner's rights on the coordinator only: the nodes are asked by the reader itself. So it gets there,
and only there, what reads the shards of the tables below the views. The coordinator's tables do not have these grants,
which Citus would copy to new shards; the default privileges of each node give them to shards that come later. A writer
has its grants on the coordinator's tables, and Citus grants on the nodes what belongs to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from mlops_db.admin.cluster.layout import DISTRIBUTED
from mlops_db.errors import RefusedError
from mlops_db.server.citus import list_distributed_tables, list_nodes
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

# Who reads the views by a grant of its own, and not the tables: on these, Citus grants on the nodes itself.
_READERS = """
    SELECT DISTINCT role.rolname::text
      FROM pg_class AS c
     CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
      JOIN pg_roles AS role ON role.oid = acl.grantee
     WHERE c.oid = 'public.v_recent_monitoring'::regclass AND acl.privilege_type = 'SELECT'
       AND acl.grantee <> c.relowner AND NOT role.rolsuper
       AND NOT (has_table_privilege(role.oid, 'public.monitoring_metrics', 'SELECT')
                AND has_table_privilege(role.oid, 'mlops_internal.metric_series', 'SELECT')
                AND has_schema_privilege(role.oid, 'mlops_internal', 'USAGE'))
     ORDER BY 1
"""
_SHARDS = """
            SELECT pg_catalog.shard_name(s.logicalrelid, s.shardid, false)
              FROM pg_catalog.pg_dist_local_group AS here
              JOIN pg_catalog.pg_dist_placement AS p ON p.groupid = here.groupid
              JOIN pg_catalog.pg_dist_shard AS s ON s.shardid = p.shardid
             WHERE s.logicalrelid::oid = ANY (ARRAY[{tables}]::regclass[])
"""
_HAS_ROLE = "SELECT count(*) FROM pg_roles WHERE rolname = {role}"
# Later shards of the coordinator would have to have default privileges there, and so would all its other new tables.
_GRANT = """
    DECLARE
        shard text;
        is_worker constant boolean := (SELECT groupid > 0 FROM pg_catalog.pg_dist_local_group);
    BEGIN
        PERFORM pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true);
        GRANT USAGE ON SCHEMA mlops_internal TO {role};
        IF is_worker THEN
            ALTER DEFAULT PRIVILEGES IN SCHEMA public, mlops_internal GRANT SELECT ON TABLES TO {role};
        END IF;
        FOR shard IN {shards}
        LOOP
            EXECUTE pg_catalog.format('GRANT SELECT ON %s TO %I', shard, {name});
        END LOOP;
    END
"""
_REVOKE = """
    DECLARE
        shard text;
        is_worker constant boolean := (SELECT groupid > 0 FROM pg_catalog.pg_dist_local_group);
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {name}) THEN
            RETURN;
        END IF;
        PERFORM pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true);
        IF {with_schema} THEN
            REVOKE USAGE ON SCHEMA mlops_internal FROM {role};
        END IF;
        IF is_worker THEN
            ALTER DEFAULT PRIVILEGES IN SCHEMA public, mlops_internal REVOKE SELECT ON TABLES FROM {role};
        END IF;
        FOR shard IN {shards}
        LOOP
            EXECUTE pg_catalog.format('REVOKE SELECT ON %s FROM %I', shard, {name});
        END LOOP;
    END
"""


def has_shards_here(cursor: SafeCursor) -> bool:
    """Whether the coordinator itself has shards, which a reader can then read there."""
    return bool(list_distributed_tables(cursor)) and any(
        node.is_coordinator and node.has_shards for node in list_nodes(cursor)
    )


def refuse_unknown_role(cursor: SafeCursor, role: str) -> None:
    """Refuse a role that a worker does not have, although the coordinator has it.

    Raises:
        RefusedError: a worker does not have it, or does not answer.
    """
    if not list_distributed_tables(cursor):
        return
    for node, found in _ask_workers(cursor, sql.SQL(_HAS_ROLE).format(role=sql.Literal(role)).as_string(cursor)):
        if found == "0":
            create = sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)).as_string(cursor)
            raise RefusedError(
                f'the worker {node} has no role "{role}"; nothing was changed',
                hint=f"Create it there: {create}. Citus does that by itself for roles that are created in a database "
                "with Citus.",
            )


def grant_readers_on_shards(settings: Settings) -> None:
    """Let all roles that read the views read the shards below them, as `grant_on_shards` does.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: a node refused, or does not answer.
    """
    with open_cursor(settings) as cursor:
        cursor.execute(_READERS)
        for (role,) in cursor.fetchall():
            grant_on_shards(cursor, role)


def grant_on_shards(cursor: SafeCursor, role: str) -> None:
    """Let a role read the shards of the tables below the views, on each node that may have some.

    Each node commits its own grants. Those that are there already stay.

    Args:
        cursor: of the owner, on the coordinator, which has committed the role.
        role: the role.

    Raises:
        RefusedError: a node refused, or does not answer.
    """
    _run_on_shards(cursor, _GRANT, role, DISTRIBUTED)


def revoke_on_shards(cursor: SafeCursor, role: str, tables: Sequence[str], *, with_schema: bool) -> None:
    """Take back on the nodes what `grant_on_shards` has granted there; each node commits its own.

    Args:
        cursor: of the owner, on the coordinator, which has committed what it revoked.
        role: the role. A node that does not have it has nothing to take back.
        tables: the tables on whose shards it may not read any more.
        with_schema: whether it needs schema mlops_internal for nothing else.

    Raises:
        RefusedError: a node refused, or does not answer.
    """
    _run_on_shards(cursor, _REVOKE, role, tables, with_schema=sql.Literal(with_schema))


def _run_on_shards(cursor: SafeCursor, body: str, role: str, tables: Sequence[str], **values: sql.Composable) -> None:
    """Run the body of a DO on each node that may have shards of these tables."""
    if not list_distributed_tables(cursor):
        return
    shards = sql.SQL(_SHARDS).format(tables=sql.SQL(", ").join(map(sql.Literal, tables)))
    filled = sql.SQL(body).format(role=sql.Identifier(role), name=sql.Literal(role), shards=shards, **values)
    command = sql.SQL("DO {}").format(sql.Literal(filled.as_string(cursor))).as_string(cursor)
    for _ in _ask_workers(cursor, command):
        pass
    if has_shards_here(cursor):
        cursor.execute(command)


def _ask_workers(cursor: SafeCursor, command: str) -> Iterator[tuple[str, str]]:
    cursor.execute("SELECT nodename, nodeport, success, result FROM run_command_on_workers(%s)", (command,))
    for host, port, success, result in cursor.fetchall():
        if not success:
            raise RefusedError(
                f"the worker {host}:{port} refused, or does not answer: {' '.join(result.split())}",
                hint="Run the same command again when that is mended; what is done already stays.",
            )
        yield f"{host}:{port}", result
