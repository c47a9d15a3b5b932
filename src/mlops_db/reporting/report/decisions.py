"""The decisions with the results of their gates, and the gates that stop candidates."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from mlops_db.reporting.report.charts import Chart, columns
from mlops_db.reporting.report.labels import apart
from mlops_db.reporting.report.window import Window
from mlops_db.schema.limits import GATES
from mlops_db.server.cursor import SafeCursor

MOST_DECISIONS = 30
MOST_STOPS = 20

_DECISIONS = f"""
    SELECT id, decision_timestamp, model_name, model_version, candidate_mlflow_run_id, action, is_rollback, reasoning,
           decided_by
      FROM public.v_decision_history
     WHERE decision_timestamp >= %(since)s AND decision_timestamp <= %(until)s
       AND (%(models)s::text[] IS NULL OR model_name = ANY(%(models)s))
     ORDER BY decision_timestamp DESC, id DESC
     LIMIT {MOST_DECISIONS}
"""
_GATES = """
    SELECT id, position, gate, result FROM reporting.decision_gates WHERE id = ANY(%s) ORDER BY id, position
"""
_STOPS = """
    SELECT first_failed_gate, action, is_rollback, count(*)
      FROM public.v_decision_history
     WHERE decision_timestamp >= %(since)s AND decision_timestamp <= %(until)s
       AND (%(models)s::text[] IS NULL OR model_name = ANY(%(models)s))
     GROUP BY 1, 2, 3
"""
GLYPHS = {"passed": "✔", "failed": "✖", "not run": "·", "unknown": "?"}


class Decision(NamedTuple):
    """A row of v_decision_history."""

    id: int
    at: datetime
    model_name: str
    model_version: str | None
    run_id: str
    action: str
    is_rollback: bool
    reasoning: str | None
    decided_by: str | None


class Gate(NamedTuple):
    """A gate of a decision: its name and its result."""

    name: str
    result: str

    @property
    def glyph(self) -> str:
        """The character beside the result."""
        return GLYPHS.get(self.result, "?")


@dataclass(frozen=True)
class Decisions:
    """The decisions of the window.

    Attributes:
        count: their number.
        rows: the newest, each with the six known gates in their order, and with the others.
        gates: the names of the known gates.
        stops: at which gates candidates stop; None if none was stopped at one.
        stopped: the number of candidates that a gate stopped.
        stops_left_out: the number of gates that are not drawn.
        by_action: the number of decisions by action; a rollback is one of its own.
    """

    count: int
    rows: list[tuple[Decision, list[Gate], list[Gate]]]
    gates: list[str]
    stops: Chart | None
    stopped: int
    stops_left_out: int
    by_action: dict[str, int]


def read_decisions(cursor: SafeCursor, window: Window, models: Sequence[str]) -> Decisions:
    """Read the decisions of some models in the window, or of all models if none is named."""
    parameters = {"models": list(models) or None, "since": window.since, "until": window.until}
    cursor.execute(_DECISIONS, parameters)
    decisions = [Decision(*row) for row in cursor.fetchall()]
    known: defaultdict[int, list[Gate]] = defaultdict(list)
    others: defaultdict[int, list[Gate]] = defaultdict(list)
    cursor.execute(_GATES, ([decision.id for decision in decisions],))
    for id_, position, gate, result in cursor.fetchall():
        (known if position <= len(GATES) else others)[id_].append(Gate(gate, result))
    cursor.execute(_STOPS, parameters)
    stops: defaultdict[str, int] = defaultdict(int)
    actions: defaultdict[str, int] = defaultdict(int)
    for gate, action, is_rollback, count in cursor.fetchall():
        actions["rollback" if is_rollback else action] += count
        if gate is not None and action != "promote":
            stops[gate] += count
    rows = [(one, known[one.id], others[one.id]) for one in decisions]
    names = [gate.name for gate in rows[0][1]] if rows else []
    order = sorted(stops, key=lambda gate: (-stops[gate], gate))
    drawn = order[:MOST_STOPS]
    label = "Candidates stopped: " + ", ".join(f"{stops[gate]} at {gate}" for gate in drawn)
    chart = Chart(
        "stops",
        label,
        {"gates": columns("row stopped", [(place, stops[gate]) for place, gate in enumerate(drawn)])},
        {"row": list(apart(drawn))},
    )
    return Decisions(
        sum(actions.values()),
        rows,
        names,
        chart if drawn else None,
        sum(stops.values()),
        len(order) - len(drawn),
        dict(sorted(actions.items(), key=lambda item: -item[1])),
    )
