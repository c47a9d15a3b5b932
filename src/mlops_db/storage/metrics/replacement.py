"""Removes the rows of earlier runs about the same moment, for `db.monitoring.log_many(replace=)`."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

import psycopg2.errors

from mlops_db.errors import ContentionError
from mlops_db.server.citus import has_citus
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.metrics.rows import MAP_INDEX
from mlops_db.storage.owned_connection import may_have_citus
from mlops_db.storage.transaction_lock import lock_until_commit

_BEGIN = "SELECT CURRENT_TIMESTAMP, nextval('public.monitoring_metrics_id_seq')"
# The new rows are stored already, because their series are known only then. They are the rows of this transaction. On
# Citus xmin is the worker's: there they have the time of this transaction, and ids above the one that it took before it
# stored them.
_NEW = "m.xmin = pg_current_xact_id()::xid"
_NEW_ON_CITUS = "m.created_at = %(now)s AND m.id > %(first_id)s"
# The models are there twice: Citus finds the nodes by their array, before it reads a row.
_OF_MOMENT = """
 unnest(%(models)s::text[], %(types)s::text[], %(names)s::text[]) AS replaced (model_name, metric_type, metric_name)
 WHERE m.timestamp = %(at)s AND m.model_name = replaced.model_name
   AND m.metric_type = replaced.metric_type AND m.metric_name = replaced.metric_name
   AND m.model_name = ANY (%(nodes)s::text[])
"""
OF_MAP_INDEX = f" AND m.metadata -> '{MAP_INDEX}' = to_jsonb(%(map_index)s::numeric)"
# Of two runs at once both have stored theirs. The one that gets the lock last sees the other's committed rows, which a
# transaction at READ COMMITTED does, and removes them.
_REMOVE = f"DELETE FROM public.monitoring_metrics AS m USING {_OF_MOMENT}"
REMOVE_EARLIER = f"{_REMOVE} AND NOT ({_NEW})"
REMOVE_EARLIER_ON_CITUS = f"{_REMOVE} AND NOT ({_NEW_ON_CITUS})"
# It fails if other rows look new than were stored, because the sequence was set back, or another run of the same
# microsecond has committed. It is sent in one message with the DELETE, and before it.
COUNT_NEW_ON_CITUS = f"""
SELECT 1 / (count(*) FILTER (WHERE {_NEW_ON_CITUS}) = %(written)s)::int
  FROM public.monitoring_metrics AS m, {_OF_MOMENT}
"""


class Beginning(NamedTuple):
    """The beginning of a transaction that replaces rows, from before it stores the new ones.

    Attributes:
        now: its time; the new rows have it as created_at.
        first_id: the new rows have greater ids; None if the server has no Citus, where nobody asks for it.
    """

    now: datetime
    first_id: int | None


def begin_replacement(cursor: SafeCursor) -> Beginning:
    """Note where the cursor's transaction begins."""
    cursor.execute(_BEGIN if may_have_citus(cursor) else "SELECT CURRENT_TIMESTAMP, NULL")
    return Beginning(*cursor.fetchall()[0])


def remove_earlier_rows(  # noqa: PLR0913  (what was stored, and what is to go)
    cursor: SafeCursor,
    series: Collection[tuple[str, str, str]],
    *,
    at: datetime,
    began: Beginning,
    written: int,
    map_index: int | None,
    wait_ms: int,
) -> int:
    """Remove what other transactions stored for one moment; returns how many rows were removed.

    Args:
        cursor: of the transaction that has stored the new rows.
        series: the (model_name, metric_type, metric_name) of the new rows.
        at: the moment.
        began: what `begin_replacement` returned before the new rows were stored.
        written: how many new rows there are.
        map_index: remove only rows with this map index; None: all rows.
        wait_ms: how long to wait for other runs about the moment, in milliseconds.

    Raises:
        ContentionError: another run about the moment has not ended, or the new rows cannot be told from others.
    """
    if not series:
        return 0
    moment = at.isoformat()
    lock_until_commit(cursor, f"mlops_db.replace {moment}", moment, wait_ms)
    models, types, names = [list(part) for part in zip(*sorted(series), strict=True)]
    parameters = {
        "models": models, "types": types, "names": names, "nodes": sorted(set(models)), "at": at,
        "now": began.now, "first_id": began.first_id, "written": written, "map_index": map_index,
    }  # fmt: skip
    same_index = "" if map_index is None else OF_MAP_INDEX
    # The database may get Citus at any time, but nobody can distribute the table after the COPY, whose locks last.
    if began.first_id is None or not has_citus(cursor):
        cursor.execute(f"{REMOVE_EARLIER}{same_index}", parameters)
        return cursor.rowcount
    try:
        cursor.execute(f"{COUNT_NEW_ON_CITUS}{same_index}; {REMOVE_EARLIER_ON_CITUS}{same_index}", parameters)
    except psycopg2.errors.DivisionByZero:
        raise ContentionError(
            f"{moment}: the {written:,} new rows cannot be told from those of other runs; nothing was stored",
            hint="Repeat the call. If that fails, too: no trigger of yours on monitoring_metrics may set id, "
            "created_at, timestamp or a name, and monitoring_metrics_id_seq may not be set back.",
        ) from None
    return cursor.rowcount
