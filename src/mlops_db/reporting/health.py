"""Reads the health of every series: its state, since when, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlops_db.reporting.states import RANK
from mlops_db.reporting.words import compared, length_in_words
from mlops_db.schema.views import recent_monitoring
from mlops_db.server.citus import HAS_CITUS
from mlops_db.server.cursor import SafeCursor

# How many rows of a series are read to find the one where its state began.
LOOK_BACK = 1_000
_MAX_REASON = 200
_LOWER = 8  # the place of the lower bound among the columns; the upper one is beside it
_KEPT = 1_000  # characters of an error's text that are read

_OF_SERIES = """
    history.model_name = {model}
    AND history.metric_type = recent.metric_type
    AND history.metric_name = recent.metric_name
"""


def _health_query(recent: str, model: str) -> str:
    """SQL for the health of series, and since when they have it.

    Each LATERAL reads nothing for a series that it is not about. `change` ends at the first row of another state.

    Args:
        recent: where the newest values are from.
        model: SQL for the name of the model whose history is read.
    """
    of_series = _OF_SERIES.format(model=model)
    return f"""
    SELECT recent.model_name, recent.metric_type, recent.metric_name, recent.health, recent.metric_value,
           recent.timestamp, recent.age, recent.expected_interval, recent.lower_threshold, recent.upper_threshold,
           own.own_threshold, own.low_is_drift,
           CASE WHEN recent.health = 'stale' THEN recent.timestamp + recent.expected_interval
                ELSE coalesce(change.since, beginning.since) END,
           recent.health = 'stale' OR change.since IS NOT NULL OR beginning.rows < {LOOK_BACK},
           left(recent.metadata ->> 'error', {_KEPT})
      FROM {recent} AS recent
      LEFT JOIN LATERAL (
          SELECT history.own_threshold, history.low_is_drift
            FROM reporting.metric_history AS history
           WHERE {of_series} AND history.timestamp = recent.timestamp AND history.id = recent.id
             AND recent.health = 'drifted'
           LIMIT 1
      ) AS own ON true
      LEFT JOIN LATERAL (
          SELECT since
            FROM (
                SELECT *, lag(timestamp) OVER (ORDER BY timestamp DESC, id DESC) AS since
                  FROM (
                      SELECT history.timestamp, history.id, history.state
                        FROM reporting.metric_history AS history
                       WHERE {of_series} AND recent.health IN ('low', 'high', 'failed', 'drifted')
                       ORDER BY history.timestamp DESC, history.id DESC
                       LIMIT {LOOK_BACK}
                  ) AS newest
            ) AS beside
           WHERE state <> recent.health
           ORDER BY timestamp DESC, id DESC
           LIMIT 1
      ) AS change ON true
      LEFT JOIN LATERAL (
          SELECT min(timestamp) AS since, count(*) AS rows
            FROM (
                SELECT history.timestamp
                  FROM reporting.metric_history AS history
                 WHERE {of_series} AND recent.health IN ('low', 'high', 'failed', 'drifted')
                   AND change.since IS NULL
                 ORDER BY history.timestamp DESC, history.id DESC
                 LIMIT {LOOK_BACK}
            ) AS newest
      ) AS beginning ON true
     WHERE %(models)s::text[] IS NULL OR recent.model_name = ANY(%(models)s)
"""


_HEALTH = _health_query("public.v_recent_monitoring", "recent.model_name")
# One model is on one shard of Citus. The view would be asked on all of them, and the tables are not for a reader.
_HEALTH_OF_MODEL = _health_query(
    f"({recent_monitoring(metrics='public.monitoring_metrics', model='%(model)s')})", "%(model)s"
)
_MAY_ASK_ITS_SHARD = f"""
    SELECT CASE WHEN NOT {HAS_CITUS} THEN false
                WHEN NOT has_schema_privilege('mlops_internal', 'USAGE') THEN false
                ELSE has_table_privilege('mlops_internal.metric_series', 'SELECT')
                     AND has_table_privilege('public.monitoring_metrics', 'SELECT') END
"""


@dataclass(frozen=True)
class SeriesHealth:
    """The health of a series at the snapshot's moment. Names and texts are as stored: other people chose them.

    Attributes:
        model_name: the model that was measured.
        metric_type: the kind of metric.
        metric_name: its name.
        state: a name of `states.STATES`.
        metric_value: the newest value; None if it could not be computed, or if there is none.
        timestamp: the moment of the newest row, in UTC; None if there is none.
        age: how long ago that is.
        expected_interval: how often a value is expected; None if no value is.
        since: since when it is in that state, in UTC. For low, high, failed and drifted: the first row after the last
            one in another state, by today's bounds. None for missing and ok.
        since_is_exact: False if the state began at `since` or earlier: only the latest 1,000 rows are read.
        bound: the bound that is broken: the catalogue's for low and high, the row's own threshold for drifted; else
            None.
        reason: why it is in that state, in words; empty for ok.
    """

    model_name: str
    metric_type: str
    metric_name: str
    state: str
    metric_value: float | None
    timestamp: datetime | None
    age: timedelta | None
    expected_interval: timedelta | None
    since: datetime | None
    since_is_exact: bool
    bound: float | None
    reason: str


def read_health(cursor: SafeCursor, models: Sequence[str] = ()) -> list[SeriesHealth]:
    """Read the health of the series, worst first, then by their names.

    Args:
        cursor: of `open_snapshot`.
        models: only series of these models; all if it is empty.
    """
    return [health for health, _, _ in read_health_and_bounds(cursor, models)]


def read_health_and_bounds(
    cursor: SafeCursor, models: Sequence[str] = ()
) -> list[tuple[SeriesHealth, float | None, float | None]]:
    """Read the health of the series, worst first, then by their names, each with the catalogue's two bounds."""
    parameters: dict[str, object] = {"models": list(models) or None}
    query = _HEALTH
    if len(models) == 1 and cursor.value(_MAY_ASK_ITS_SHARD):
        query, parameters["model"] = _HEALTH_OF_MODEL, models[0]
    cursor.execute(query, parameters)
    found = [(_series_health(*row), row[_LOWER], row[_LOWER + 1]) for row in cursor.fetchall()]
    return sorted(found, key=lambda one: _place(one[0]))


def _place(one: SeriesHealth) -> tuple[int, str, str, str]:
    return RANK[one.state], one.model_name, one.metric_type, one.metric_name


def _series_health(  # noqa: PLR0913, PLR0917  (a row's columns)
    model_name: str,
    metric_type: str,
    metric_name: str,
    state: str,
    value: float | None,
    timestamp: datetime | None,
    age: timedelta | None,
    expected: timedelta | None,
    lower: float | None,
    upper: float | None,
    own: float | None,
    low_is_drift: bool | None,  # noqa: FBT001  (the same)
    since: datetime | None,
    since_is_exact: bool,  # noqa: FBT001  (the same)
    error: str | None,
) -> SeriesHealth:
    bound = {"low": lower, "high": upper, "drifted": own}.get(state)
    reason = ""
    if state == "failed":
        reason = f"no value: {_excerpt(error)}" if error else "no value"
    elif state == "missing":
        reason = "no value"
    elif state == "stale" and age is not None:
        reason = f"no value for {length_in_words(age)}"
    elif state == "drifted" and (value is None or bound is None):
        reason = "its metadata says so"
    elif value is not None and bound is not None:
        reason = compared(value, bound)
        if state == "drifted":
            reason += " (low means drift)" if low_is_drift else ""
    if state in ("stale", "missing") and expected is not None:
        reason += f", expected every {length_in_words(expected)}"
    return SeriesHealth(
        model_name, metric_type, metric_name, state, value, timestamp, age, expected, since, since_is_exact, bound,
        reason,
    )  # fmt: skip


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…"
