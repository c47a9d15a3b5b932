"""Reads the values of every series: their least, mean and greatest in each step of the window."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timezone
from itertools import pairwise
from typing import NamedTuple

from mlops_db.reporting.health import SeriesHealth, read_health_and_bounds
from mlops_db.reporting.report.window import Window
from mlops_db.reporting.states import RANK
from mlops_db.server.cursor import SafeCursor

# A series without an expected interval is silent when nothing comes for that many of its usual intervals.
SILENT_INTERVALS = 5

Key = tuple[str, str, str]

# avg() squares what it averages, and fails if that is more than a double holds.
_SPANS = """
    SELECT model_name, metric_type, metric_name,
           floor(extract(epoch FROM timestamp) / %(step)s)::float8 * %(step)s AS start,
           min(metric_value),
           CASE WHEN max(abs(metric_value)) < 1e140 THEN avg(metric_value) FILTER (WHERE abs(metric_value) < 1e140) END,
           max(metric_value), count(metric_value), count(*) - count(metric_value),
           extract(epoch FROM min(timestamp))::float8, extract(epoch FROM max(timestamp))::float8
      FROM reporting.metric_history
     WHERE timestamp >= %(since)s AND timestamp <= %(until)s
       AND (%(models)s::text[] IS NULL OR model_name = ANY(%(models)s))
     GROUP BY 1, 2, 3, 4
     ORDER BY 1, 2, 3, 4
"""


class Span(NamedTuple):
    """The values of a series in one step of the window. Times are in seconds.

    Attributes:
        start: where the step begins.
        least: the least value; None if no value could be computed.
        mean: their mean; None also if a value is 1e140 or more.
        greatest: the greatest value.
        values: the number of values.
        failed: the number of computations without a value.
        first: the time of the first row.
        last: the time of the last row.
    """

    start: float
    least: float | None
    mean: float | None
    greatest: float | None
    values: int
    failed: int
    first: float
    last: float

    @property
    def middle(self) -> float:
        """The middle of its rows: the time of its value, if it has one."""
        return (self.first + self.last) / 2


@dataclass(frozen=True)
class Series:
    """A series, and its values in the window.

    Attributes:
        health: its health now.
        lower: the catalogue's lower bound.
        upper: the catalogue's upper bound.
        spans: the steps of the window that have rows, oldest first.
    """

    health: SeriesHealth
    lower: float | None
    upper: float | None
    spans: tuple[Span, ...]

    @property
    def key(self) -> Key:
        """Its names."""
        return self.health.model_name, self.health.metric_type, self.health.metric_name

    @property
    def rank(self) -> int:
        """0 for the worst state."""
        return RANK[self.health.state]

    @property
    def broken_bounds(self) -> list[float]:
        """The bound that the newest value breaks, which its picture must show."""
        return [self.health.bound] if self.health.bound is not None and self.health.state != "drifted" else []

    @property
    def longest_interval(self) -> float | None:
        """How long it may be silent, in seconds; None if nobody knows."""
        if self.health.expected_interval is not None:
            return self.health.expected_interval.total_seconds()
        usual = [
            (after.first - before.first) / (before.values + before.failed) for before, after in pairwise(self.spans)
        ]
        return SILENT_INTERVALS * statistics.median(usual) if usual else None

    def gaps(self, window: Window) -> Iterator[tuple[float, float]]:
        """The times without a row that are longer than they should be, after the first row of the window."""
        longest = self.longest_interval
        if longest is None or not self.spans:
            return
        ends = [*((span.first, span.last) for span in self.spans), (window.until.timestamp(),) * 2]
        for (_, last), (first, _) in pairwise(ends):
            if first - last > longest:
                yield last, first


@dataclass(frozen=True)
class AllSeries:
    """Every series of the catalogue, and what the window has beside it.

    Attributes:
        series: worst first, then by their names.
        unknown: the number of series with rows in the window that the catalogue lacks.
        later: the number of series whose newest row has a time in the future.
    """

    series: tuple[Series, ...]
    unknown: int
    later: int


def read_series(cursor: SafeCursor, window: Window, models: Sequence[str]) -> AllSeries:
    """Read every series of some models, or of all if none is named.

    Args:
        cursor: of `open_snapshot`.
        window: the time of the values.
        models: their names.
    """
    since, until, step = window.since, window.until, window.step.total_seconds()
    parameters = {"models": list(models) or None, "since": since, "until": until, "step": step}
    health = read_health_and_bounds(cursor, models)
    spans: defaultdict[Key, list[Span]] = defaultdict(list)
    cursor.execute(_SPANS, parameters)
    for model_name, metric_type, metric_name, *values in cursor.fetchall():
        spans[model_name, metric_type, metric_name].append(Span(*values))
    series = []
    for one, lower, upper in health:
        key = one.model_name, one.metric_type, one.metric_name
        series.append(Series(one, lower, upper, tuple(spans.pop(key, ()))))
    later = sum(one.timestamp is not None and one.timestamp.astimezone(timezone.utc) > until for one, _, _ in health)
    return AllSeries(tuple(series), len(spans), later)
