"""The states of a metric series: those of v_recent_monitoring.health and of reporting.metric_history."""

from typing import NamedTuple


class State(NamedTuple):
    """A state of a series.

    Attributes:
        name: as the views write it.
        glyph: one character that is drawn beside the name, so that nobody has to tell colours apart.
        meaning: one sentence for people.
        style: the colour on a terminal.
    """

    name: str
    glyph: str
    meaning: str
    style: str


# Worst first: harm that was measured, then what nobody knows, then the early warning.
STATES = (
    State("low", "▼", "The newest value is below the lower bound.", "bold red"),
    State("high", "▲", "The newest value is above the upper bound.", "bold red"),
    State("failed", "✖", "The newest value could not be computed.", "red"),
    State("stale", "◷", "The newest value is older than the expected interval.", "yellow"),
    State("missing", "○", "The series has no value.", "yellow"),
    State("drifted", "◆", "The newest value's own metadata says that drift was detected.", "magenta"),
    State("ok", "✔", "The newest value is in time and within its bounds.", "green"),
)
STATE = {state.name: state for state in STATES}
RANK = {state.name: rank for rank, state in enumerate(STATES)}
