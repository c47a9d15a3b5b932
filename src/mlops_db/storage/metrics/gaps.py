"""Finds the gaps of series for `db.monitoring.gaps`: where values are missing, by the expected interval."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Gap:
    """A time in which a series has fewer values than expected.

    Attributes:
        model_name: the model that is measured.
        metric_type: the kind of metric.
        metric_name: the metric.
        since: the moment of the last row before the gap, in UTC; if there is none, when the series was registered. Not
            earlier than the time asked for.
        until: the moment of the first row after the gap, in UTC; if there is none, the end of the time asked for.
        expected: how many values were expected from `since`, inclusive, to `until`, exclusive.
        missing: how many of them are missing: all but the one at `since`, if there is one.
    """

    model_name: str
    metric_type: str
    metric_name: str
    since: datetime
    until: datetime
    expected: int
    missing: int


_UNTIL = "least(%(until)s::timestamptz, CURRENT_TIMESTAMP)"
_ASKED = f"m.timestamp >= %(since)s::timestamptz AND m.timestamp < {_UNTIL}"
_BEFORE = "earlier.timestamp, series.registered_at"


def gaps_query(filters: Collection[str]) -> str:
    """SQL for the gaps, by series, the oldest first.

    It pairs each row with the row before it, in the order of the key, and the last row with the end of the time asked
    for. The first row is paired with the last row before that time; of the values between them, only those within it
    count. Citus takes no LATERAL without FROM, and sends a query about one model to its shard if it is compared with
    both tables.

    Args:
        filters: the columns of the series that are equal to the parameter of their name.
    """
    rows = f"""
public.monitoring_metrics AS m
          WHERE m.model_name = {"%(model_name)s" if "model_name" in filters else "series.model_name"}
            AND m.metric_type = series.metric_type AND m.metric_name = series.metric_name
"""
    condition = " AND ".join(f"series.{column} = %({column})s" for column in filters) or "true"
    return f"""
SELECT model_name, metric_type, metric_name, greatest(after, %(since)s::timestamptz), until, missing + after_row::int,
       missing
  FROM (
     SELECT series.model_name, series.metric_type, series.metric_name, two.after, two.until, two.after_row,
            {_slots("two.after", "two.until")} - {_slots("two.after", "%(since)s::timestamptz")} AS missing
       FROM mlops_internal.metric_series AS series
       LEFT JOIN LATERAL (
          SELECT m.timestamp FROM {rows} AND m.timestamp < %(since)s::timestamptz ORDER BY m.timestamp DESC LIMIT 1
       ) AS earlier ON true
      CROSS JOIN LATERAL (
          SELECT m.model_name, lag(m.timestamp, 1, coalesce({_BEFORE})) OVER in_order AS after, m.timestamp AS until,
                 lag(m.timestamp) OVER in_order IS NOT NULL AS after_row
            FROM {rows} AND {_ASKED}
          WINDOW in_order AS (ORDER BY m.timestamp)
           UNION ALL
          SELECT series.model_name, coalesce(max(m.timestamp), {_BEFORE}), {_UNTIL}, max(m.timestamp) IS NOT NULL
            FROM {rows} AND {_ASKED}
      ) AS two
      WHERE series.expected_interval IS NOT NULL AND {condition}
  ) AS pairs
 WHERE missing > 0
 ORDER BY model_name, metric_type, metric_name, until
"""


def _slots(after: str, until: str) -> str:
    """SQL for how many values fit between two moments, each up to half an interval early or late."""
    intervals = f"extract(epoch FROM {until} - {after})::float8 / extract(epoch FROM series.expected_interval)::float8"
    return f"greatest(floor({intervals} + 0.5)::bigint - 1, 0)"
