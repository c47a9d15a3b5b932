"""Who holds the lock that a statement has waited for in vain.

After a lock timeout the server does not tell: nobody waits any more. A row's lock is in the row itself, as the
transaction that has it; where the server names the row, that is looked up. Of what else there is to wait for, those are
told who hold what can have been in the way.
"""

import re
from contextlib import suppress

import psycopg2
from psycopg2 import sql

from mlops_db.errors import MlopsDbError
from mlops_db.server.cursor import SafeCursor

# CONTEXT: while locking tuple (0,3) in relation "model_versions"; in whatever language.
_ROW = re.compile(r"(\(\d+,\d+\)).*[\"«„“](.+?)[\"»“”]")
_TABLE = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relname = %s AND c.relkind = 'r' AND c.oid >= 16384
"""
_WHO = """
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
_OURS = "l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c.oid >= 16384"
_KEEPS_OUT = "l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')"


def holders_of_lock(error: psycopg2.Error) -> str:
    """Say who holds the lock, as the end of a sentence; rolls the transaction back.

    Args:
        error: the lock timeout.

    Returns:
        Such as `; it is held by pid 7 (nightly, role airflow)`, or nothing if nobody is found.
    """
    if error.cursor is None:
        return ""
    with suppress(psycopg2.Error, MlopsDbError):
        connection = error.cursor.connection
        connection.rollback()
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            ways: list[tuple[str, str, tuple[str, ...]]] = []
            row = _ROW.search((error.diag.context or "").partition("\n")[0])
            if row is None:
                ways = [("is", f"{_KEEPS_OUT} AND {_OURS}", ()), ("may be", f"l.granted AND {_OURS}", ())]
            else:
                place, relation = row.groups()
                transaction = _transaction_of(cursor, place, relation)
                if transaction:
                    ways = [("is", "x.transactionid = %s::xid", (transaction,))]
                ways += [("may be", f"{_HAS_ROWS} AND {_OURS} AND c.relname = %s", (relation,))]
            for verb, condition, values in ways:
                cursor.execute(_WHO.format(condition), values)
                if found := [who for (who,) in cursor.fetchall() if who]:
                    return f"; it {verb} held by {'; '.join(found)}"
    return ""


def _transaction_of(cursor: SafeCursor, place: str, relation: str) -> str | None:
    """The transaction that has locked or changed a row; None for several, and for what is no table."""
    cursor.execute(_TABLE, (relation,))
    for schema, table in cursor.fetchall():
        row = sql.SQL("SELECT xmax::text FROM {} WHERE ctid = %s::tid").format(sql.Identifier(schema, table))
        cursor.execute(row, (place,))
        for (transaction,) in cursor.fetchall():
            return str(transaction)
    return None
