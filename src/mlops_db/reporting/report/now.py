"""What is not ok now, a card for each model, and which models and types are silent."""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.reporting.health import SeriesHealth
from mlops_db.reporting.report.charts import Chart, columns
from mlops_db.reporting.report.labels import apart, moment
from mlops_db.reporting.report.production import Period, Production
from mlops_db.reporting.report.scale import ValueScale
from mlops_db.reporting.report.series import Series, Span
from mlops_db.reporting.report.window import Window
from mlops_db.reporting.states import STATES, State
from mlops_db.reporting.words import length_in_words

if TYPE_CHECKING:
    from datetime import datetime, timedelta

MOST_TROUBLES = 40
MOST_CARDS = 40
MOST_ROWS = 40  # of models and types

_WIDTH, _HEIGHT, _EDGE = 120, 28, 2


@dataclass(frozen=True)
class Sparkline:
    """A line of the size of a word. It has no axis, so it is plain SVG, and is there without the page's script.

    Attributes:
        lines: the points of each unbroken part.
        dots: the points that have no neighbours.
        bounds: the heights of the bounds.
        view_box: its size.
    """

    lines: list[str]
    dots: list[tuple[float, float]]
    bounds: list[float]
    view_box: str = f"0 0 {_WIDTH} {_HEIGHT}"


@dataclass(frozen=True)
class Trouble:
    """A series that is not ok."""

    health: SeriesHealth
    since: str
    sparkline: Sparkline | None


@dataclass(frozen=True)
class Card:
    """A model at one look.

    Attributes:
        name: the model.
        period: the period of its version in production; None if there is none.
        lasted: how long that version has been in production, in words; empty if nobody knows.
        counts: its states and the number of series in each, worst first.
    """

    name: str
    period: Period | None
    lasted: str
    counts: list[tuple[State, int]]


@dataclass(frozen=True)
class Freshness:
    """The series of a type of a model.

    Attributes:
        model_name: the model.
        metric_type: the type.
        newest: the time of the newest row of all; empty without one.
        age: how long ago that is.
        series: the number of series.
        stale: how many of them are stale.
        missing: how many of them have no row.
        expected: the shortest expected interval, in words.
    """

    model_name: str
    metric_type: str
    newest: str
    age: str
    series: int
    stale: int
    missing: int
    expected: str


def list_troubles(series: Collection[Series], window: Window) -> tuple[list[Trouble], Counter[str]]:
    """The series that are not ok, worst first, and the number of those that are left out, by state."""
    bad = [one for one in series if one.health.state != "ok"]
    shown = [Trouble(one.health, _since(one.health), _sparkline(one, window)) for one in bad[:MOST_TROUBLES]]
    return shown, Counter(one.health.state for one in bad[MOST_TROUBLES:])


def make_cards(
    models: Collection[str], series: Collection[Series], production: Production, window: Window
) -> tuple[list[Card], int]:
    """A card for each model, worst first, and the number of models that are left out."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in series:
        counts[one.health.model_name][one.health.state] += 1
    worst_first = sorted(models, key=lambda name: ([-counts[name][state.name] for state in STATES[:-1]], name))
    cards = []
    for name in worst_first[:MOST_CARDS]:
        period = production.current(name)
        lasted = "" if period is None or period.since is None else length_in_words(window.until - period.since)
        states = [(state, counts[name][state.name]) for state in STATES if counts[name][state.name]]
        cards.append(Card(name, period, lasted, states))
    return cards, max(0, len(models) - MOST_CARDS)


def draw_freshness(series: Collection[Series], window: Window) -> tuple[list[Freshness], Chart | None, int]:
    """The models and types, silent ones first; when rows of them came; and how many of them are left out."""
    groups: defaultdict[tuple[str, str], list[Series]] = defaultdict(list)
    for one in series:
        groups[one.health.model_name, one.health.metric_type].append(one)

    def silence(key: tuple[str, str]) -> tuple[int, tuple[str, str]]:
        return -sum(one.health.state in ("stale", "missing") for one in groups[key]), key

    shown = sorted(groups, key=silence)[:MOST_ROWS]
    rows = [_freshness(*key, [one.health for one in groups[key]], window) for key in shown]
    steps = [step for place, key in enumerate(shown) for step in _steps(place, groups[key], window)]
    chart = Chart(
        "beats",
        f"When rows came, for {len(rows)} models and types: "
        + "; ".join(f"{row.model_name} {row.metric_type} newest {row.newest or 'never'}" for row in rows),
        {"steps": columns("row step reported all", steps)},
        {"row": list(apart(f"{row.model_name} · {row.metric_type}" for row in rows))},
    )
    return rows, chart if steps else None, max(0, len(groups) - MOST_ROWS)


def _since(health: SeriesHealth) -> str:
    text = moment(health.since)
    return text if health.since_is_exact or not text else f"{text} or earlier"


def _freshness(model_name: str, metric_type: str, group: list[SeriesHealth], window: Window) -> Freshness:
    newest: datetime | None = max((one.timestamp for one in group if one.timestamp is not None), default=None)
    expected: timedelta | None = min(
        (one.expected_interval for one in group if one.expected_interval is not None), default=None
    )
    age = ""
    if newest is not None:
        age = "in the future" if newest > window.until else f"{length_in_words(window.until - newest)} ago"
    return Freshness(
        model_name,
        metric_type,
        moment(newest),
        age,
        len(group),
        sum(one.state == "stale" for one in group),
        sum(one.state == "missing" for one in group),
        "" if expected is None else length_in_words(expected),
    )


def _steps(place: int, group: list[Series], window: Window) -> list[tuple[int, int, int, int]]:
    reported = Counter(span.start for one in group for span in one.spans)
    return [(place, window.place(start), count, len(group)) for start, count in sorted(reported.items())]


def _sparkline(series: Series, window: Window) -> Sparkline | None:
    spans = [span for span in series.spans if span.least is not None and span.greatest is not None]
    if not spans:
        return None
    bounds = (series.lower, series.upper)
    values = [value for span in spans for value in (span.least, span.greatest) if value is not None]
    scale = ValueScale.of([*values, *series.broken_bounds], bounds)
    since, until, step = window.seconds

    def x(span: Span) -> float:
        return round(_EDGE + (_WIDTH - 2 * _EDGE) * (span.middle - since) / (until - since), 1)

    def y(value: float) -> float:
        share = (value / 2 - scale.least / 2) / (scale.greatest / 2 - scale.least / 2)
        return round(_HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * share, 1)

    lines, dots = [], []
    longest = max(series.longest_interval or 0.0, step)
    part: list[Span] = []
    for span, after in zip(spans, [*spans[1:], None], strict=True):
        part.append(span)
        if after is None or after.first - span.last > longest:
            if len(part) == 1:
                dots.append((x(span), y(_mean(span))))
            else:
                lines.append(" ".join(f"{x(one)},{y(_mean(one))}" for one in part))
            part = []
    return Sparkline(lines, dots, [y(bound) for bound in bounds if bound is not None and scale.shows(bound)])


def _mean(span: Span) -> float:
    """The height of a point: of values whose mean does not fit a double, their greatest."""
    value = span.greatest if span.mean is None else span.mean
    return ValueScale.drawn(value) or 0.0
