"""Reads the rows of one series as Python objects, newest first, a page at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from mlops_db.storage.transactions import Transactions

PAGE = 5_000  # rows that are read at once
LEAST_ID = 1 - 2**63

# Each page begins after the last row of the page before it. The plain comparison with the timestamp is redundant, but
# PostgreSQL chooses partitions by it. The names are those that were asked for: to send and to read them with each row
# would take longer.
HISTORY = """
SELECT id, timestamp, metric_value, metadata, created_at
  FROM public.monitoring_metrics
 WHERE model_name = %(model_name)s AND metric_type = %(metric_type)s AND metric_name = %(metric_name)s
   AND timestamp >= %(since)s AND timestamp <= %(until)s AND (timestamp, id) < (%(until)s, %(id)s)
 ORDER BY timestamp DESC, id DESC LIMIT %(size)s
"""


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of monitoring_metrics.

    Attributes:
        id: the row's number; of two rows with the same timestamp the greater id is the newer.
        timestamp: the moment that the value is about, in UTC.
        model_name: the model that was measured.
        metric_type: the kind of metric.
        metric_name: the metric.
        metric_value: the value; None if it could not be computed.
        metadata: details, as the JSON that was given.
        created_at: when the row was written, in UTC.
    """

    id: int
    timestamp: datetime
    model_name: str
    metric_type: str
    metric_name: str
    metric_value: float | None
    metadata: Any
    created_at: datetime


def read_history(transactions: Transactions, parameters: Mapping[str, Any]) -> Iterator[Metric]:
    """The rows of a series, newest first; no connection is held between two pages.

    Args:
        transactions: the database.
        parameters: model_name, metric_type, metric_name, since, until, and limit: how many rows at most, None for all.
    """
    names = [parameters[name] for name in ("model_name", "metric_type", "metric_name")]
    limit: int | None = parameters["limit"]
    page_start = {"id": LEAST_ID, "until": parameters["until"]}
    more = True
    while more:
        size = PAGE if limit is None else min(PAGE, limit)
        with transactions.safe_cursor() as cursor:
            cursor.execute(HISTORY, {**parameters, **page_start, "size": size})
            page = cursor.fetchall()
        more = len(page) == PAGE
        if more:
            id_, timestamp, *_ = page[-1]
            page_start = {"id": id_, "until": timestamp}
            limit = None if limit is None else limit - PAGE
        # Each row is freed when its metric is made: the garbage collector looks at many objects again and again.
        page.reverse()
        while page:
            yield _make_metric(names, page.pop())


_SETTERS = [getattr(Metric, field.name).__set__ for field in fields(Metric)]
_set_id, _set_timestamp, _set_model, _set_type, _set_name, _set_value, _set_metadata, _set_created = _SETTERS


def _make_metric(names: list[str], row: tuple[Any, ...]) -> Metric:
    # The frozen dataclass's own __init__ takes twice as long.
    metric = object.__new__(Metric)
    model_name, metric_type, metric_name = names
    id_, timestamp, value, metadata, created_at = row
    _set_id(metric, id_)
    _set_timestamp(metric, timestamp)
    _set_model(metric, model_name)
    _set_type(metric, metric_type)
    _set_name(metric, metric_name)
    _set_value(metric, value)
    _set_metadata(metric, metadata)
    _set_created(metric, created_at)
    return metric
