"""Finds the sessions that held the lock when a statement reached its lock_timeout.

After the timeout nobody waits any more, so the server cannot name them. If it names a row, the row itself has the
transaction that locked it. Otherwise it finds sessions whose locks can have been the cause.
"""

import re
from contextlib import suppress

import psycopg2
from psycopg2 import sql

from mlops_db.errors import MlopsDbError
from mlops_db.server.citus import NODE
from mlops_db.server.cursor import SafeCursor

# CONTEXT: while locking tuple (0,3) in relation "model_versions"; in any language.
_ROW = re.compile(r"(\(\d+,\d+\)).*[\"«„“](.+?)[\"»“”]")
# Citus leaves its shards, such as metric_series_102008, out of pg_class for everybody who does not ask for them.
_SHARD = re.compile(r"_\d{6,}$")
# The node that CONTEXT of Citus names may be this one.
_IS_WORKER = "SELECT groupid > 0 FROM pg_catalog.pg_dist_node WHERE nodename || ':' || nodeport = %s"
_SHOW_SHARDS = "SET LOCAL citus.override_table_visibility = off"
_TABLE = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relname = %s AND c.relkind = 'r' AND c.oid >= 16384
"""
_HOLDERS = """
SELECT coalesce(
           'pid ' || who.pid || ' (' || concat_ws(', ', nullif(a.application_name, ''), 'role ' || a.usename) || ')',
           'the prepared transaction ' || quote_literal(p.gid))
  FROM (SELECT DISTINCT l.pid, x.transactionid
          FROM pg_locks AS l
          LEFT JOIN pg_locks AS x
            ON x.virtualtransaction = l.virtualtransaction AND x.locktype = 'transactionid' AND x.granted
               AND x.mode = 'ExclusiveLock'
          LEFT JOIN pg_class AS c ON l.locktype = 'relation' AND c.oid = l.relation
         WHERE l.pid IS DISTINCT FROM pg_backend_pid() AND {}) AS who
  LEFT JOIN pg_stat_activity AS a ON a.pid = who.pid
  LEFT JOIN pg_prepared_xacts AS p ON who.pid IS NULL AND p.transaction = who.transactionid
 ORDER BY a.xact_start NULLS FIRST
 LIMIT 3
"""
_HAS_ROWS = "l.granted AND l.mode IN ('RowShareLock', 'RowExclusiveLock') AND x.transactionid IS NOT NULL"
_USER_TABLE = "l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c.oid >= 16384"
_KEEPS_OUT = "l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"


def describe_holders(error: psycopg2.Error) -> str:
    """The sessions that hold the lock, as the end of a sentence; rolls the transaction back.

    Args:
        error: the lock timeout.

    Returns:
        Such as `; it is held by pid 7 (nightly, role airflow)`, or an empty text if no session is found. A worker
        of Citus is named instead of its sessions.
    """
    if error.cursor is None:
        return ""
    with suppress(psycopg2.Error, MlopsDbError):
        connection = error.cursor.connection
        connection.rollback()
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            context = error.diag.context or ""
            if (node := NODE.search(context)) and cursor.value(_IS_WORKER, (node[1],)):
                return f"; it is held on worker {node[1]}"
            row = _ROW.search(context.partition("\n")[0])
            ways: list[tuple[str, str, tuple[str | None, ...]]]
            if row is None:
                ways = [("is", f"{_KEEPS_OUT} AND {_USER_TABLE}", ()), ("may be", f"l.granted AND {_USER_TABLE}", ())]
            else:
                place, relation = row.groups()
                if _SHARD.search(relation):
                    cursor.execute(_SHOW_SHARDS)
                ways = [
                    ("is", "x.transactionid = %s::xid", (_find_transaction(cursor, place, relation),)),
                    ("may be", f"{_HAS_ROWS} AND {_USER_TABLE} AND c.relname = %s", (relation,)),
                ]
            for verb, condition, values in ways:
                cursor.execute(_HOLDERS.format(condition), values)
                if found := [who for (who,) in cursor.fetchall() if who]:
                    return f"; it {verb} held by {'; '.join(found)}"
    return ""


def _find_transaction(cursor: SafeCursor, place: str, relation: str) -> str | None:
    """The transaction that has locked or changed a row; None if there is no such row."""
    cursor.execute(_TABLE, (relation,))
    for schema, table in cursor.fetchall():
        row = sql.SQL("SELECT xmax::text FROM {} WHERE ctid = %s::tid").format(sql.Identifier(schema, table))
        cursor.execute(row, (place,))
        for (transaction,) in cursor.fetchall():
            return str(transaction)
    return None
