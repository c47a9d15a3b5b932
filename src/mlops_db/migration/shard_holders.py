"""Who holds shards on the workers of Citus, where no lock on the coordinator shows it."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions

from mlops_db.errors import printable
from mlops_db.server.citus import has_citus

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Sessions of Citus itself work for a session on the coordinator, which has locks there. Every role may see the pid and
# the application_name of every session; a prepared transaction has no session. Names of shards end with their numbers.
_HOLDERS = r"""
    SELECT string_agg(DISTINCT CASE WHEN l.pid IS NULL THEN 'a prepared transaction (see pg_prepared_xacts)'
                                    ELSE format('pid %s (%s)', l.pid, coalesce(nullif(a.application_name, ''),
                                                                               'no application name')) END, ', ')
      FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid JOIN pg_class AS c ON c.oid = l.relation
     WHERE l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND substring(c.relname FROM '_(\d+)$')::numeric IN (SELECT shardid FROM pg_catalog.pg_dist_shard)
       AND l.pid IS DISTINCT FROM pg_backend_pid()
       AND (l.pid IS NULL OR a.usesysid IS NOT NULL AND coalesce(a.application_name, '') NOT LIKE 'citus%')
"""


def find_shard_holders(connection: Connection) -> str:
    """The sessions that have locks on shards, with their workers; empty if there are none, or if nobody can be asked.

    Args:
        connection: to the coordinator, in autocommit mode or with a transaction that has failed. Without Citus there
            are none.
    """
    driver: Any = connection.connection.dbapi_connection
    rows: list[tuple[str, str]] = []
    _roll_back(driver)
    # psycopg2's own class: the rules for a revision's statements are not for this one.
    with suppress(psycopg2.Error), closing(psycopg2.extensions.cursor(driver)) as cursor:
        if has_citus(cursor):
            cursor.execute(
                "SELECT nodename || ':' || nodeport, result FROM run_command_on_workers(%s)"
                " WHERE success AND result <> ''",
                (_HOLDERS,),
            )
            rows = cursor.fetchall()
    _roll_back(driver)
    return "; ".join(printable(f"{holders} on {node}") for node, holders in rows)


def _roll_back(driver: Any) -> None:
    if not driver.autocommit:
        with suppress(psycopg2.Error):  # a connection that broke fails again in the next attempt, which reports it
            driver.rollback()
