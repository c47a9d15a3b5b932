"""What distributing or bringing back does, or would do, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from mlops_db.migration.progress import duration

# What the tables of all shards cost, with four months and four to eight shards, without any rows.
_FIXED_S = 3.0


@dataclass(frozen=True)
class Step:
    """A step, done or planned.

    Attributes:
        action: `distribute` or `bring back` a table, `rewrite` a function or view.
        name: the table, function or view.
    """

    action: str
    name: str


@dataclass(frozen=True)
class Outcome:
    """What was done, or would be.

    Attributes:
        shards: how many shards the tables have afterwards; None if they are plain.
        steps: what is to do; empty if all is done.
        rows: how many rows move, by the statistics.
        size: how many bytes these have, with their indexes.
        stall_s: how long readers and writers of the metrics wait, by what was measured.
    """

    shards: int | None
    steps: tuple[Step, ...]
    rows: int
    size: int
    stall_s: float

    @property
    def expectation(self) -> str:
        """Rows, size and the expected stall, for people."""
        return (
            f"about {self.rows:,} rows, {self.size / 1e6:,.1f} MB; readers and writers of the metrics wait about "
            f"{duration(self.stall_s)}"
        )


def expect_stall(rows: int, seconds_a_million: float) -> float:
    """How long readers and writers of the metrics wait, in seconds, by what was measured.

    Args:
        rows: how many rows move.
        seconds_a_million: how long a million of them takes.
    """
    return _FIXED_S + rows / 1e6 * seconds_a_million
