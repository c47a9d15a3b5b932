"""The heat map: how near each feature came to its threshold, step by step."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlops_db.reporting.report.charts import Chart, columns
from mlops_db.reporting.report.labels import apart
from mlops_db.reporting.report.series import Key, Series
from mlops_db.reporting.report.window import Window
from mlops_db.server.cursor import SafeCursor

OPEN_ROWS = 60  # those of the other models are drawn when somebody opens them
MOST_ROWS = 1_000

_FAILED = -1.0
_LARGEST = 1_000.0  # times the threshold
# Few thresholds a series, so few rows a step.
_OWN = """
    SELECT model_name, metric_type, metric_name,
           floor(extract(epoch FROM timestamp) / %(step)s)::float8 * %(step)s AS start,
           own_threshold, low_is_drift, min(metric_value), max(metric_value)
      FROM reporting.metric_history
     WHERE timestamp >= %(since)s AND timestamp <= %(until)s
       AND metric_type = 'drift' AND own_threshold IS NOT NULL
       AND (%(models)s::text[] IS NULL OR model_name = ANY(%(models)s))
     GROUP BY 1, 2, 3, 4, 5, 6
"""


class Own(NamedTuple):
    """The values of a step that have one threshold of their own.

    Attributes:
        start: where the step begins, in seconds.
        threshold: their threshold.
        low_is_drift: whether a value below it means drift; None if the rows do not say.
        least: the least value; None if none could be computed.
        greatest: the greatest value.
    """

    start: float
    threshold: float
    low_is_drift: bool | None
    least: float | None
    greatest: float | None


@dataclass(frozen=True)
class HeatMap:
    """The heat map of a model.

    Attributes:
        model_name: the model.
        chart: the picture.
        rows: the number of its series.
        beyond: how many of them reached their threshold.
        is_open: whether it is drawn at once.
    """

    model_name: str
    chart: Chart
    rows: int
    beyond: int
    is_open: bool


@dataclass(frozen=True)
class Drift:
    """All heat maps.

    Attributes:
        maps: worst model first.
        without_threshold: the number of series of type drift for which no threshold is known, or not its direction.
        without_value: the number of series that have a threshold, and no row in the window.
        left_out: the number of series beyond the most that are drawn.
        beside_drift: the number of series in it of other types.
    """

    maps: list[HeatMap]
    without_threshold: int
    without_value: int
    left_out: int
    beside_drift: int


def read_own(cursor: SafeCursor, window: Window, models: Sequence[str]) -> dict[Key, list[Own]]:
    """Read the least and greatest values of each step beside the thresholds that their rows have."""
    parameters = {
        "models": list(models) or None,
        "since": window.since,
        "until": window.until,
        "step": window.step.total_seconds(),
    }
    found: defaultdict[Key, list[Own]] = defaultdict(list)
    cursor.execute(_OWN, parameters)
    for model_name, metric_type, metric_name, *own in cursor.fetchall():
        found[model_name, metric_type, metric_name].append(Own(*own))
    return found


def draw_drift(
    series: Collection[Series], own: dict[Key, list[Own]], not_drawn: Collection[Series], window: Window
) -> Drift:
    """Draw the series of type drift, and those with bounds that are not drawn elsewhere."""
    elsewhere = {one.key for one in not_drawn}
    rows: list[tuple[Series, dict[float, float]]] = []
    without_threshold = without_value = 0
    for one in series:
        is_drift = one.health.metric_type == "drift"
        if not is_drift and one.key not in elsewhere:
            continue
        if not _has_bound(one) and not _has_threshold(own.get(one.key, ())):
            without_threshold += is_drift
        elif shares := _shares(one, own.get(one.key, ())):
            rows.append((one, shares))
        else:
            without_value += 1
    rows.sort(key=lambda row: (-max(row[1].values()), row[0].key))
    kept = rows[:MOST_ROWS]
    groups: defaultdict[str, list[tuple[Series, dict[float, float]]]] = defaultdict(list)
    for row in kept:
        groups[row[0].health.model_name].append(row)
    maps: list[HeatMap] = []
    drawn = 0
    for name, group in groups.items():
        drawn += len(group)
        maps.append(_heat_map(name, group, window, is_open=not maps or drawn <= OPEN_ROWS))
    beside = sum(one.health.metric_type != "drift" for one, _ in kept)
    return Drift(maps, without_threshold, without_value, len(rows) - len(kept), beside)


def _heat_map(
    model_name: str, group: list[tuple[Series, dict[float, float]]], window: Window, *, is_open: bool
) -> HeatMap:
    labels = list(
        apart(
            one.health.metric_name
            if one.health.metric_type == "drift"
            else f"{one.health.metric_type} · {one.health.metric_name}"
            for one, _ in group
        )
    )
    cells = [
        (place, window.place(start), float(f"{share:.3g}"))
        for place, (_, shares) in enumerate(group)
        for start, share in sorted(shares.items())
    ]
    beyond = sum(max(shares.values()) >= 1 for _, shares in group)
    label = f"{model_name}: {beyond} of {len(group)} series reached their threshold; most: " + ", ".join(
        f"{name} {max(shares.values()):.3g} times" for name, (_, shares) in list(zip(labels, group, strict=True))[:3]
    )
    chart = Chart("heat", label, {"steps": columns("row step share", cells)}, {"row": labels})
    return HeatMap(model_name, chart, len(group), beyond, is_open)


def _has_threshold(own: Collection[Own]) -> bool:
    """Whether the rows have a threshold that can be divided by, and say what it means."""
    known = {one.low_is_drift for one in own} - {None}
    return bool(known) and any(one.threshold > 0 for one in own)


def _has_bound(series: Series) -> bool:
    """Whether the catalogue has a bound that can be divided by."""
    return bool((series.upper is not None and series.upper > 0) or (series.lower is not None and series.lower > 0))


def _shares(series: Series, own: Collection[Own]) -> dict[float, float]:
    """The greatest share of each step."""
    shares = {span.start: _FAILED for span in series.spans if span.least is None and span.failed}
    for start, share in [*_own_shares(own), *_bound_shares(series)]:
        shares[start] = max(shares.get(start, _FAILED), share)
    return shares


def _own_shares(own: Collection[Own]) -> Iterator[tuple[float, float]]:
    # A row that does not say whether it drifted has the direction of the others.
    known = {one.low_is_drift for one in own} - {None}
    for one in own:
        low_is_drift = next(iter(known)) if one.low_is_drift is None and len(known) == 1 else one.low_is_drift
        if one.threshold <= 0 or low_is_drift is None or one.least is None or one.greatest is None:
            continue
        yield one.start, _below(one.least, one.threshold) if low_is_drift else _above(one.greatest, one.threshold)


def _bound_shares(series: Series) -> Iterator[tuple[float, float]]:
    for span in series.spans:
        if span.least is None or span.greatest is None:
            continue
        if series.upper is not None and series.upper > 0:
            yield span.start, _above(span.greatest, series.upper)
        if series.lower is not None and series.lower > 0:
            yield span.start, _below(span.least, series.lower)


def _above(value: float, threshold: float) -> float:
    """How much of an upper threshold a value reaches."""
    return min(_LARGEST, max(0.0, value / threshold if value / _LARGEST < threshold else _LARGEST))


def _below(value: float, threshold: float) -> float:
    """The same for a threshold that a value must not fall below, such as a p-value's."""
    return threshold / value if value > threshold / _LARGEST else _LARGEST
