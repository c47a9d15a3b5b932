"""Removes the rows of earlier runs about the same moment, for `db.monitoring.log_many(replace=)`."""

from collections.abc import Collection
from datetime import datetime

from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.metrics.rows import MAP_INDEX
from mlops_db.storage.transaction_lock import lock_until_commit

# The new rows are stored already, because their series are known only then. They have the time of this transaction, and
# ids above `first_id`, which it took before it stored them. xmin would not do: on Citus it is the worker's.
# Of two runs at once both have stored theirs. The one that gets the lock last sees the other's committed rows, which a
# transaction at READ COMMITTED does, and removes them.
# The models are there twice: Citus finds the nodes by the array, before it reads a row.
BEGIN_REPLACEMENT = "SELECT CURRENT_TIMESTAMP, nextval('public.monitoring_metrics_id_seq')"
REMOVE_EARLIER = """
DELETE FROM public.monitoring_metrics AS m
 USING unnest(%s::text[], %s::text[], %s::text[]) AS replaced (model_name, metric_type, metric_name)
 WHERE m.timestamp = %s AND m.model_name = replaced.model_name
   AND m.metric_type = replaced.metric_type AND m.metric_name = replaced.metric_name
   AND m.model_name = ANY (%s::text[]) AND NOT (m.created_at = %s AND m.id > %s)
"""
OF_MAP_INDEX = f" AND m.metadata -> '{MAP_INDEX}' = to_jsonb(%s::numeric)"


def remove_earlier_rows(  # noqa: PLR0913  (what was stored, and what is to go)
    cursor: SafeCursor,
    series: Collection[tuple[str, str, str]],
    *,
    at: datetime,
    began: tuple[datetime, int],
    map_index: int | None,
    wait_ms: int,
) -> int:
    """Remove what other transactions stored for one moment; returns how many rows were removed.

    Args:
        cursor: of the transaction that has stored the new rows.
        series: the (model_name, metric_type, metric_name) of the new rows.
        at: the moment.
        began: what `BEGIN_REPLACEMENT` returned before the new rows were stored.
        map_index: remove only rows with this map index; None: all rows.
        wait_ms: how long to wait for other runs about the moment, in milliseconds.

    Raises:
        ContentionError: another run about the moment has not ended.
    """
    if not series:
        return 0
    moment = at.isoformat()
    lock_until_commit(cursor, f"mlops_db.replace {moment}", moment, wait_ms)
    models, types, names = [list(part) for part in zip(*sorted(series), strict=True)]
    parameters = (models, types, names, at, models, *began)
    if map_index is None:
        cursor.execute(REMOVE_EARLIER, parameters)
    else:
        cursor.execute(REMOVE_EARLIER + OF_MAP_INDEX, (*parameters, map_index))
    return cursor.rowcount
