"""Who holds shards on the workers, where no lock on the coordinator shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.errors import printable
from mlops_db.server.citus import HAS_CITUS

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Sessions of Citus itself work for a session on the coordinator, which has locks there. Every role may see the pid and
# the application_name of every session.
_HOLDERS = """
    SELECT string_agg(DISTINCT format('pid %s (%s)', a.pid, coalesce(nullif(a.application_name, ''),
                                                                     'no application name')), ', ')
      FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid JOIN pg_class AS c ON c.oid = l.relation
     WHERE l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND c.relname LIKE 'monitoring_metrics%' AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
       AND coalesce(a.application_name, '') NOT LIKE 'citus%'
"""


def find_holders(connection: Connection) -> str:
    """The sessions that have locks on shards of monitoring_metrics, with their workers; empty if there are none.

    Args:
        connection: to the coordinator, outside of a transaction. Without Citus there are none.
    """
    if not connection.exec_driver_sql(f"SELECT {HAS_CITUS}").scalar_one():
        return ""
    rows = connection.exec_driver_sql(
        "SELECT nodename || ':' || nodeport, result FROM run_command_on_workers(%s) WHERE success AND result <> ''",
        (_HOLDERS,),
    ).all()
    return "; ".join(printable(f"{holders} on {node}") for node, holders in rows)
