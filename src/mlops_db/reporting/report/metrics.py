"""Small multiples: a chart for each of the series that matter most."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from mlops_db.errors import printable
from mlops_db.reporting.report.charts import Chart, columns
from mlops_db.reporting.report.drift import Own
from mlops_db.reporting.report.labels import milliseconds, moment, number
from mlops_db.reporting.report.production import Production
from mlops_db.reporting.report.scale import LARGEST, ValueScale
from mlops_db.reporting.report.series import Key, Series, Span
from mlops_db.reporting.report.window import Window

MOST_DRAWN = 60

# What people ask for first.
_TYPES = ("performance", "drift", "coverage", "prediction")


@dataclass(frozen=True)
class Multiple:
    """The picture of a series.

    Attributes:
        series: the series.
        chart: None if the window has no row of it.
        summary: the newest value, and the least and the greatest of the window, in words.
        bounds: its bounds, in words; empty without one.
        off: what is not on the axis, in words.
    """

    series: Series
    chart: Chart | None
    summary: str
    bounds: str
    off: str


def choose(series: Collection[Series]) -> tuple[list[Series], list[Series]]:
    """The series to draw: worst first, then those with bounds, then by type; and those that are left out."""

    def weight(one: Series) -> tuple[int, bool, int]:
        kind = one.health.metric_type
        place = _TYPES.index(kind) if kind in _TYPES else len(_TYPES)
        return one.rank, one.lower is None and one.upper is None, place

    ordered = sorted(series, key=weight)
    return ordered[:MOST_DRAWN], ordered[MOST_DRAWN:]


def draw_metrics(
    chosen: Collection[Series], own: Mapping[Key, Collection[Own]], production: Production, window: Window
) -> list[tuple[str, list[Multiple]]]:
    """Draw series, grouped by model in the order of their worst."""
    groups: defaultdict[str, list[Multiple]] = defaultdict(list)
    for one in chosen:
        groups[one.health.model_name].append(_multiple(one, own.get(one.key, ()), production, window))
    return list(groups.items())


def count_states(series: Collection[Series]) -> Counter[str]:
    """The number of series in each state."""
    return Counter(one.health.state for one in series)


def _bounds(series: Series, own: Collection[Own]) -> Iterator[tuple[str, float]]:
    """The bounds of the catalogue, with their names; without one, the threshold of the newest rows that have one."""
    if series.lower is not None:
        yield "lower bound", series.lower
    if series.upper is not None:
        yield "upper bound", series.upper
    if series.lower is None and series.upper is None and own:
        yield "own threshold", max(own, key=lambda one: one.start).threshold


def _multiple(series: Series, own: Collection[Own], production: Production, window: Window) -> Multiple:
    health = series.health
    values = [value for span in series.spans for value in (span.least, span.greatest) if value is not None]
    bounds = list(_bounds(series, own))
    scale = ValueScale.of([*values, *series.broken_bounds], (bound for _, bound in bounds))
    words = ", ".join(f"{name} {number(bound)}" for name, bound in bounds)
    off = [f"{name} {number(bound)}" for name, bound in bounds if not scale.shows(bound)]
    if any(ValueScale.drawn(value) != value for value in values):
        off.append(f"values beyond {number(LARGEST)}, which are drawn there")
    summary = _summary(series, values)
    if not series.spans:
        return Multiple(series, None, summary, words, "")
    gaps = [tuple(map(milliseconds, gap)) for gap in series.gaps(window)]
    label = f"{' '.join(series.key)}, {health.state}: {summary}"
    label += "".join(f"; {text}" for text in (words, f"{len(gaps)} gaps" if gaps else "") if text)
    since, until, _ = window.seconds
    promotions = [
        (milliseconds(period.since.timestamp()), printable(period.model_version))
        for period in production.periods
        if period.model_name == health.model_name
        and period.since is not None
        and since <= period.since.timestamp() <= until
    ]
    names = "t step low mean high values failed part alone text"
    chart = Chart(
        "metric",
        label,
        {
            "points": columns(names, _points(series, window)),
            "gaps": columns("t t2", gaps),
            "bounds": columns("bound", [(bound,) for _, bound in bounds if scale.shows(bound)]),
            "promotions": columns("t version", promotions),
        },
        {},
        scale.values,
    )
    return Multiple(series, chart, summary, words, ", ".join(off))


def _points(series: Series, window: Window) -> Iterator[tuple[object, ...]]:
    """A point for each step. A part ends before a gap, and where no value could be computed."""
    before_gaps = {last for last, _ in series.gaps(window)}
    parts: list[int] = []
    part = 0
    for span in series.spans:
        if span.least is None:
            part += 1
        parts.append(part)
        if span.least is None or span.last in before_gaps:
            part += 1
    sizes = Counter(parts)
    for span, part in zip(series.spans, parts, strict=True):
        yield (
            milliseconds(span.middle),
            window.place(span.start),
            ValueScale.drawn(span.least),
            _rounded(ValueScale.drawn(span.mean if span.mean is not None else span.greatest)),
            ValueScale.drawn(span.greatest),
            span.values,
            span.failed,
            part,
            sizes[part] == 1 and span.least is not None,
            _text(span),
        )


def _text(span: Span) -> str:
    if span.values > 1 and span.least != span.greatest:
        return f"{number(span.least)} to {number(span.greatest)}, mean {number(span.mean) or 'beyond a double'}"
    return number(span.greatest)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _summary(series: Series, values: list[float]) -> str:
    health = series.health
    if health.timestamp is None:
        return "no row at all"
    value = number(health.metric_value) or "no value"
    if not series.spans:
        return f"no row in this time; the newest is {value} of {moment(health.timestamp)}"
    spread = f"{number(min(values))} to {number(max(values))}" if values else "no value could be computed"
    return f"{value} at {moment(health.timestamp)}; {spread}"
