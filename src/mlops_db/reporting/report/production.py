"""Which versions were in production when, and what was measured of each while it was."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from mlops_db.errors import printable
from mlops_db.reporting.report.charts import Chart, columns
from mlops_db.reporting.report.labels import apart, milliseconds, moment, number
from mlops_db.reporting.report.scale import ValueScale
from mlops_db.reporting.report.window import Window
from mlops_db.server.cursor import SafeCursor

MOST_MODELS = 40
MOST_LIVE = 24  # charts of live values
MOST_PERIODS = 20  # of a model, in a chart of live values
SCORES = {"f1_score": "F1", "brier_score": "Brier"}

_PERIODS = """
    SELECT model_name, model_version, since, until, in_production, returned, f1_score, brier_score, f1_delta,
           brier_delta, previous_version
      FROM reporting.production_periods
     WHERE %(models)s::text[] IS NULL OR model_name = ANY(%(models)s)
     ORDER BY model_name, since NULLS FIRST
"""
# The periods come as arrays: a reader may not read on Citus what is on the coordinator and on the workers in the same
# query. The bounds of the window stand alone, too: they leave out the other months; and so do the models.
_LIVE = """
    SELECT p.model_name, p.model_version, p.since, h.metric_name, count(h.metric_value), min(h.metric_value),
           CASE WHEN max(abs(h.metric_value)) < 1e140
                THEN avg(h.metric_value) FILTER (WHERE abs(h.metric_value) < 1e140) END,
           max(h.metric_value)
      FROM unnest(%(names)s::text[], %(versions)s::text[], %(begins)s::timestamptz[], %(ends)s::timestamptz[])
           AS p (model_name, model_version, since, until)
      JOIN reporting.metric_history AS h
        ON h.model_name = p.model_name AND h.metric_type = 'performance' AND h.metric_name = ANY(%(scores)s)
       AND (h.timestamp >= p.since OR p.since IS NULL) AND (h.timestamp < p.until OR p.until IS NULL)
     WHERE h.timestamp >= %(since)s AND h.timestamp <= %(until)s
       AND (%(models)s::text[] IS NULL OR h.model_name = ANY(%(models)s))
     GROUP BY 1, 2, 3, 4
    HAVING count(h.metric_value) > 0
"""


class Period(NamedTuple):
    """A row of reporting.production_periods."""

    model_name: str
    model_version: str
    since: datetime | None
    until: datetime | None
    in_production: bool
    returned: bool
    f1_score: float | None
    brier_score: float | None
    f1_delta: float | None
    brier_delta: float | None
    previous_version: str | None

    @property
    def end_is_unknown(self) -> bool:
        """Whether it ended, and nobody recorded when."""
        return self.until is None and not self.in_production

    def end(self, window: Window) -> datetime:
        """Where its bar ends: now if it goes on, where it began if its end is unknown."""
        if self.end_is_unknown:
            return self.since or window.since
        return min(self.until or window.until, window.until)


class Live(NamedTuple):
    """What was measured of a version during one period, in the window."""

    values: int
    least: float
    mean: float | None
    greatest: float


@dataclass(frozen=True)
class Production:
    """The periods, and the live values of each in the window.

    Attributes:
        periods: by model, oldest first.
        live: the values of a period, by its model, version, beginning, and the score's name.
    """

    periods: tuple[Period, ...]
    live: dict[tuple[str, str, datetime | None, str], Live]

    def current(self, model_name: str) -> Period | None:
        """The period of the version that is in production."""
        return next((one for one in self.periods if one.model_name == model_name and one.in_production), None)


@dataclass(frozen=True)
class Timeline:
    """The picture of the versions in production.

    Attributes:
        chart: None if no period lies in the window.
        rows: the periods in the window, as a table, newest first.
        models_left_out: the number of models that are not drawn.
        unknown_ends: the number of periods in it whose end nobody recorded.
    """

    chart: Chart | None
    rows: list[tuple[Period, str, str]]
    models_left_out: int
    unknown_ends: int


@dataclass(frozen=True)
class LivePicture:
    """The live values of a model's periods beside the scores that the versions had before.

    Attributes:
        model_name: the model.
        score: the name of the score.
        chart: the picture.
        rows: the same as a table: the period, its offline score, and its live values.
        left_out: the number of earlier periods that are not drawn.
    """

    model_name: str
    score: str
    chart: Chart
    rows: list[tuple[Period, float | None, Live]]
    left_out: int


def read_production(cursor: SafeCursor, window: Window, models: Sequence[str]) -> Production:
    """Read the periods of some models, or of all if none is named."""
    parameters: dict[str, object] = {
        "models": list(models) or None,
        "since": window.since,
        "until": window.until,
        "scores": list(SCORES),
    }
    cursor.execute(_PERIODS, parameters)
    periods = tuple(Period(*row) for row in cursor.fetchall())
    ended = [period for period in periods if not period.end_is_unknown]
    parameters |= {
        "names": [period.model_name for period in ended],
        "versions": [period.model_version for period in ended],
        "begins": [period.since for period in ended],
        "ends": [period.until for period in ended],
    }
    cursor.execute(_LIVE, parameters)
    live = {(model, version, since, name): Live(*values) for model, version, since, name, *values in cursor.fetchall()}
    return Production(periods, live)


def draw_timeline(production: Production, window: Window) -> Timeline:
    """Draw the versions in production over time."""
    shown = [
        one
        for one in production.periods
        if one.end(window) >= window.since and (one.since is None or one.since <= window.until)
    ]
    models = sorted({one.model_name for one in shown})
    places = {name: place for place, name in enumerate(models[:MOST_MODELS])}
    drawn = [one for one in shown if one.model_name in places]
    rows = [
        (
            places[one.model_name],
            milliseconds((one.since or window.since).timestamp()),
            milliseconds(one.end(window).timestamp()),
            printable(one.model_version),
            moment(one.since),
            moment(one.until),
            one.in_production,
            one.returned,
        )
        for one in drawn
    ]
    current = [one for one in drawn if one.in_production]
    label = f"{len(drawn)} periods of {len(places)} models; in production now: " + (
        ", ".join(f"{one.model_name} version {one.model_version}" for one in current) or "none"
    )
    names = "row t t2 version began ended now returned"
    chart = Chart("periods", label, {"periods": columns(names, rows)}, {"row": list(apart(places))})
    table = [(one, moment(one.since), moment(one.until)) for one in reversed(drawn)]
    return Timeline(
        chart if drawn else None,
        table,
        max(0, len(models) - MOST_MODELS),
        sum(one.end_is_unknown for one in drawn),
    )


def draw_live(production: Production) -> tuple[list[LivePicture], int]:
    """Draw the live values beside the offline scores; and the number of pictures that are left out."""
    found: defaultdict[tuple[str, str], list[tuple[Period, Live]]] = defaultdict(list)
    for period in production.periods:
        for score in SCORES:
            live = production.live.get((period.model_name, period.model_version, period.since, score))
            if live is not None:
                found[period.model_name, score].append((period, live))
    pictures = [_live_picture(*key, measured) for key, measured in sorted(found.items())]
    return pictures[:MOST_LIVE], max(0, len(pictures) - MOST_LIVE)


def _live_picture(model_name: str, score: str, measured: list[tuple[Period, Live]]) -> LivePicture:
    newest = measured[-MOST_PERIODS:]
    table = [(period, getattr(period, score), live) for period, live in reversed(newest)]
    scale = ValueScale.of(
        value for _, offline, live in table for value in (offline, live.least, live.greatest) if value is not None
    )
    rows = [
        (
            place,
            scale.drawn(live.least),
            scale.drawn(live.greatest),
            scale.drawn(live.mean),
            scale.drawn(offline),
            f"{number(live.mean)} ({number(live.least)} to {number(live.greatest)}, {live.values:,} values)",
            number(offline) or "not recorded",
        )
        for place, (_, offline, live) in enumerate(table)
    ]
    names = list(
        apart(
            f"{'↩ ' if period.returned else ''}{period.model_version} "
            f"{'from ' + moment(period.since)[:10] if period.since else ''}"
            for period, _, _ in table
        )
    )
    label = f"{SCORES[score]} of {model_name} while in production, and before: " + "; ".join(
        f"version {period.model_version} live {number(live.mean)}, offline {number(offline) or 'not recorded'}"
        for period, offline, live in table
    )
    chart = Chart(
        "live",
        label,
        {"periods": columns("row low high live offline live_text offline_text", rows)},
        {"row": names},
        scale.values,
    )
    return LivePicture(model_name, score, chart, table, len(measured) - len(newest))
