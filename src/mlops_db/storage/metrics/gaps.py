"""Finds the gaps of series for `db.monitoring.gaps`: where values are missing, by the expected interval."""

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


_ROWS = """
public.monitoring_metrics AS m
          WHERE m.model_name = series.model_name AND m.metric_type = series.metric_type
            AND m.metric_name = series.metric_name
"""
_UNTIL = "least(%(until)s::timestamptz, CURRENT_TIMESTAMP)"
_ASKED = f"m.timestamp >= %(since)s::timestamptz AND m.timestamp < {_UNTIL}"


def _slots(after: str, until: str) -> str:
    """SQL for how many values fit between two moments, each up to half an interval early or late."""
    intervals = f"extract(epoch FROM {until} - {after})::float8 / extract(epoch FROM series.expected_interval)::float8"
    return f"greatest(floor({intervals} + 0.5)::bigint - 1, 0)"


# Pairs each row with the row before it, in the order of the key, and the last row with the end of the time asked for.
# The first row is paired with the last row before that time; of the values between them, only those within it count.
GAPS = f"""
SELECT series.model_name, series.metric_type, series.metric_name,
       greatest(two.after, %(since)s::timestamptz), two.until, gap.missing + two.after_row::int, gap.missing
  FROM mlops_internal.metric_series AS series
 CROSS JOIN LATERAL (
     SELECT coalesce(
         (SELECT m.timestamp FROM {_ROWS} AND m.timestamp < %(since)s::timestamptz ORDER BY m.timestamp DESC LIMIT 1),
         series.registered_at
     ) AS moment
 ) AS before
 CROSS JOIN LATERAL (
     SELECT lag(m.timestamp, 1, before.moment) OVER in_order AS after, m.timestamp AS until,
            lag(m.timestamp) OVER in_order IS NOT NULL AS after_row
       FROM {_ROWS} AND {_ASKED}
     WINDOW in_order AS (ORDER BY m.timestamp)
      UNION ALL
     SELECT coalesce(last.moment, before.moment), {_UNTIL}, last.moment IS NOT NULL
       FROM (SELECT max(m.timestamp) AS moment FROM {_ROWS} AND {_ASKED}) AS last
 ) AS two
 CROSS JOIN LATERAL (
     SELECT {_slots("two.after", "two.until")} - {_slots("two.after", "%(since)s::timestamptz")} AS missing
 ) AS gap
 WHERE series.expected_interval IS NOT NULL AND gap.missing > 0 AND {{condition}}
 ORDER BY series.model_name, series.metric_type, series.metric_name, two.until
"""
