"""The time that the report is about, and the steps that it is divided into."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone

from mlops_db.reporting.words import length_in_words
from mlops_db.server.cursor import SafeCursor

# More steps than that are no longer told apart in a small chart.
_MOST_STEPS = 125
_STEPS = (
    timedelta(minutes=15),
    timedelta(hours=1),
    timedelta(hours=4),
    timedelta(days=1),
    timedelta(days=7),
    timedelta(days=30),
)


@dataclass(frozen=True)
class Window:
    """The time that the report is about.

    Attributes:
        days: how many days before now it reaches back.
        since: its beginning: midnight in UTC, so that the first day is whole.
        until: the snapshot's moment, in UTC.
        step: the time for which one point of a chart stands; steps are counted from 1970-01-01 in UTC.
    """

    days: int
    since: datetime
    until: datetime
    step: timedelta

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Its beginning, its end, and its step, in seconds."""
        return self.since.timestamp(), self.until.timestamp(), self.step.total_seconds()

    def place(self, start: float) -> int:
        """The number of the step that begins at `start`, in seconds: short, where a chart has thousands of them."""
        return round(start / self.step.total_seconds())

    @property
    def step_in_words(self) -> str:
        """The step, as it stands after `each`: `day`, `4 hours`."""
        return length_in_words(self.step).removeprefix("1 ")


def read_window(cursor: SafeCursor, days: int) -> Window:
    """The window of the last `days` days.

    Args:
        cursor: of `open_snapshot`.
        days: their number.
    """
    until = cursor.value("SELECT CURRENT_TIMESTAMP").astimezone(timezone.utc)
    since = datetime.combine(until.date() - timedelta(days=days), time(), timezone.utc)
    step = next(step for step in _STEPS if (until - since) / step <= _MOST_STEPS)
    return Window(days, since, until, step)
