"""The kinds of charts, in Vega-Lite, and what one chart of a kind shows.

A kind names its data and its parameters. A chart has values for them, so that a page with a hundred charts has each
kind once. Names from the database are values only, never fields or expressions: Vega-Lite would read `a.b` as a path.
Colours are the page's CSS variables, which the page changes with the theme.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mlops_db.errors import require_extra
from mlops_db.reporting.report.labels import milliseconds
from mlops_db.reporting.report.window import Window

Specification = dict[str, Any]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_DAYS_WITH_HOURS, _DAYS_WITHOUT_YEAR = 4, 366


@dataclass(frozen=True)
class Chart:
    """A chart of the page.

    Attributes:
        kind: a name of `kinds`.
        label: what it shows, in words, for those who do not see it.
        data: the columns of each data set of the kind.
        names: the texts of columns that have places in this list instead, by the column's name.
        values: the values of the kind's parameters.
    """

    kind: str
    label: str
    data: Mapping[str, Mapping[str, list[Any]]]
    names: Mapping[str, list[str]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """What the page's script needs to draw it."""
        return {"data": self.data, "names": self.names, "values": self.values}


def columns(names: str, rows: Iterable[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """Rows as columns.

    Args:
        names: the names of the columns, separated by spaces.
        rows: a value for each of them.
    """
    split = names.split()
    found = list(zip(*rows, strict=True)) or [()] * len(split)
    return {name: list(values) for name, values in zip(split, found, strict=True)}


def find_library() -> Any:
    """The module vl_convert.

    Raises:
        MissingExtraError: the extra `report` is not installed.
    """
    with require_extra("report", "the report needs the package vl-convert-python, which is not installed"):
        import vl_convert  # noqa: PLC0415  (optional)
    return vl_convert


def compile_kinds(window: Window) -> dict[str, Any]:
    """The kinds of charts, compiled to Vega."""
    since, until, step = window.seconds
    shared = {
        "autosize": {"type": "fit-x", "contains": "padding"},
        "width": "container",
        "padding": 0,
        "background": None,
        "config": _CONFIG,
    }
    time = _time_axis(window)
    kinds = {
        "metric": _metric(time),
        "beats": _beats(time),
        "heat": _heat(time),
        "periods": _periods(time),
        "scores": _SCORES,
        "live": _LIVE,
        "stops": _STOPS,
    }
    window_of = [
        {"name": "since", "value": milliseconds(since)},
        {"name": "until", "value": milliseconds(until)},
        {"name": "step_length", "value": milliseconds(step)},
    ]
    return {
        name: find_library().vegalite_to_vega({**shared, **kind, "params": [*window_of, *kind.get("params", ())]})
        for name, kind in kinds.items()
    }


@cache
def vega() -> str:
    """The JavaScript that draws the charts; making it takes a second."""
    return str(find_library().javascript_bundle("window.vegaEmbed = vegaEmbed;"))


_CONFIG: Specification = {
    "aria": False,  # the page labels the whole chart
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--quiet)",
        "titleColor": "var(--quiet)",
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
}
_NARROW = "containerSize()[0] < 520"
_ROW_AXIS: Specification = {"title": None, "labelLimit": {"expr": f"{_NARROW} ? 155 : 260"}, "grid": False}
_ROWS: Specification = {"field": "row", "type": "nominal", "sort": None, "axis": _ROW_AXIS, "title": None}
_VALUE_SCALE = {"zero": False, "nice": False, "domainMin": {"expr": "least"}, "domainMax": {"expr": "greatest"}}
_VALUE_AXIS = {"title": None, "labelExpr": "format(datum.value, numbers)"}
_VALUES = [{"name": "least", "value": 0}, {"name": "greatest", "value": 1}, {"name": "numbers", "value": ".3~f"}]
_TIP = {"field": "tip", "type": "nominal"}
_AT = "utcFormat(datum.{}, '%Y-%m-%d %H:%M')"


# A step has a number instead of its times.
_STEP_TIMES: list[Specification] = [
    {"calculate": "datum.step * step_length", "as": "start"},
    {"calculate": "min(datum.start + step_length, until)", "as": "end"},
]


def _tip(*parts: str) -> list[Specification]:
    """The text of a tooltip, a line for each expression."""
    return [{"calculate": " + '\\n' + ".join(parts), "as": "tip"}]


def _time_axis(window: Window) -> Specification:
    text = "%b %-d"
    if window.days <= _DAYS_WITH_HOURS:
        text = "%b %-d %H:%M"
    elif window.days > _DAYS_WITHOUT_YEAR:
        text = "%b %Y"
    return {
        "field": "t",
        "type": "temporal",
        "scale": {"type": "utc", "nice": False, "domainMin": {"expr": "since"}, "domainMax": {"expr": "until"}},
        "axis": {
            "title": None,
            "grid": False,
            "format": text,
            "tickCount": {"expr": "ceil(width / 90)"},
            "labelFlush": True,
            "labelOverlap": "parity",
            "labelSeparation": 8,
        },
    }


def _metric(time: Specification) -> Specification:
    """A series: its mean, and what lies between its least and greatest, beside bounds, gaps, failures, promotions."""
    value = {"field": "mean", "type": "quantitative", "scale": _VALUE_SCALE, "axis": _VALUE_AXIS}
    to = {"field": "t2"}
    return {
        "height": 130,
        "params": _VALUES,
        "encoding": {"x": time},
        "layer": [
            {
                "data": {"name": "gaps"},
                "transform": _tip("'no row from'", _AT.format("t"), f"'until ' + {_AT.format('t2')}"),
                "mark": {"type": "rect", "color": "var(--gap)", "clip": True},
                "encoding": {"x2": to, "tooltip": _TIP},
            },
            {
                "data": {"name": "points"},
                "mark": {"type": "area", "color": "var(--band)", "clip": True},
                "encoding": {
                    "y": value | {"field": "low"},
                    "y2": {"field": "high"},
                    "detail": {"field": "part", "type": "nominal"},
                },
            },
            {
                "data": {"name": "points"},
                "mark": {"type": "line", "color": "var(--accent)", "strokeWidth": 1.5, "clip": True},
                "encoding": {"y": value, "detail": {"field": "part", "type": "nominal"}},
            },
            {
                "data": {"name": "points"},
                "transform": [{"filter": "datum.alone"}],
                "mark": {"type": "point", "filled": True, "color": "var(--accent)", "size": 18, "opacity": 1},
                "encoding": {"y": value},
            },
            {
                "data": {"name": "bounds"},
                "mark": {"type": "rule", "color": "var(--bad)", "strokeDash": [5, 3], "clip": True},
                "encoding": {"y": value | {"field": "bound"}, "x": None},
            },
            {
                "data": {"name": "promotions"},
                "transform": _tip("'version ' + datum.version + ' in production'", _AT.format("t")),
                "mark": {"type": "rule", "color": "var(--promotion)", "strokeWidth": 1.5, "strokeDash": [2, 2]},
                "encoding": {"tooltip": _TIP},
            },
            {
                "data": {"name": "points"},
                "transform": [{"filter": "datum.failed > 0"}],
                "mark": {"type": "text", "text": "✖", "color": "var(--bad)", "fontSize": 10, "baseline": "bottom"},
                "encoding": {"y": {"value": {"expr": "height"}}},
            },
            {
                "data": {"name": "points"},
                "transform": [
                    *_STEP_TIMES,
                    *_tip(
                        f"{_AT.format('start')} + ' UTC'",
                        "(datum.values ? datum.values + (datum.values == 1 ? ' value' : ' values') + ': ' + datum.text "
                        ": 'no value')",
                        "(datum.failed ? datum.failed + ' failed' : '')",
                    ),
                ],
                "mark": {"type": "rect", "opacity": 0, "clip": True},
                "encoding": {
                    "x": {**time, "field": "start"},
                    "x2": {"field": "end"},
                    "tooltip": _TIP,
                },
            },
            {
                "data": {"name": "promotions"},
                "transform": _tip("'version ' + datum.version + ' in production'", _AT.format("t")),
                "mark": {"type": "rule", "opacity": 0, "strokeWidth": 9},
                "encoding": {"tooltip": _TIP},
            },
        ],
    }


def _beats(time: Specification) -> Specification:
    """In which steps rows came, for each model and type."""
    return {
        "height": {"step": 18},
        "data": {"name": "steps"},
        "transform": [
            *_STEP_TIMES,
            *_tip("datum.row", _AT.format("start"), "datum.reported + ' of ' + datum.all + ' series had a row'"),
        ],
        "mark": {"type": "rect", "clip": True, "height": {"band": 0.72}},
        "encoding": {
            "x": {**time, "field": "start"},
            "x2": {"field": "end"},
            "y": _ROWS,
            "tooltip": _TIP,
            "color": {
                "condition": {"test": "datum.reported >= datum.all", "value": "var(--beat)"},
                "value": "var(--beat-some)",
            },
        },
    }


def _heat(time: Specification) -> Specification:
    """The drift of each feature in each step, as a share of its threshold; below 0: it could not be computed."""
    return {
        "height": {"step": 16},
        "data": {"name": "steps"},
        "transform": [
            *_STEP_TIMES,
            *_tip(
                "datum.row",
                _AT.format("start"),
                "(datum.share < 0 ? 'could not be computed' : format(datum.share, '.3~r') + ' times its threshold')",
            ),
        ],
        "mark": {
            "type": "rect",
            "clip": True,
            "stroke": "var(--card)",
            "strokeWidth": {"expr": "width < 400 ? 0 : 0.5"},
        },
        "encoding": {
            "x": {**time, "field": "start"},
            "x2": {"field": "end"},
            "y": _ROWS,
            "tooltip": _TIP,
            "color": {
                "field": "share",
                "type": "quantitative",
                "legend": None,
                "scale": {
                    "type": "threshold",
                    "domain": [0, 0.5, 0.75, 1, 2],
                    "range": ["var(--heat-failed)", *(f"var(--heat-{place})" for place in range(5))],
                },
            },
        },
    }


def _periods(time: Specification) -> Specification:
    """Which version was in production when."""
    text = "(datum.returned ? '↩ ' : '') + datum.version"
    fits = f"(min(datum.t2, until) - max(datum.t, since)) / (until - since) * width > 7 * length({text}) + 10"
    return {
        "height": {"step": 30},
        "data": {"name": "periods"},
        "transform": [
            *_tip(
                "datum.row + ', version ' + datum.version + (datum.returned ? ', back again' : '')",
                "(datum.began ? 'since ' + datum.began : 'since a time that nobody recorded')",
                "(datum.now ? 'in production now' : datum.ended ? 'until ' + datum.ended : 'until a time that nobody "
                "recorded')",
            ),
            {"calculate": text, "as": "text"},
            {"calculate": "max(datum.t, since)", "as": "left"},
        ],
        "encoding": {"y": _ROWS, "tooltip": _TIP},
        "layer": [
            {
                "mark": {
                    "type": "rect",
                    "clip": True,
                    "height": {"band": 0.7},
                    "stroke": "var(--card)",
                    "strokeWidth": 2,
                    "cornerRadius": 3,
                },
                "encoding": {
                    "x": {**time, "field": "left"},
                    "x2": {"field": "t2"},
                    "color": {"condition": {"test": "datum.now", "value": "var(--now)"}, "value": "var(--past)"},
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 12, "baseline": "middle"},
                "encoding": {
                    "x": {**time, "field": "left"},
                    "text": {"field": "text"},
                    "color": {"value": "var(--text)"},
                    "opacity": {"condition": {"test": fits, "value": 1}, "value": 0},
                },
            },
        ],
    }


_VERSION: Specification = {
    "field": "row",
    "type": "nominal",
    "sort": None,
    "axis": {"title": "version", "labelAngle": 0, "labelOverlap": "greedy", "labelLimit": 60, "grid": False},
}
# The score of each version: filled if it has been in production.
_SCORES: Specification = {
    "height": 130,
    "params": _VALUES,
    "data": {"name": "versions"},
    "transform": _tip("'version ' + datum.row + ', ' + datum.status", "datum.text"),
    "encoding": {
        "x": _VERSION,
        "y": {"field": "score", "type": "quantitative", "scale": _VALUE_SCALE, "axis": _VALUE_AXIS},
    },
    "layer": [
        {"mark": {"type": "line", "color": "var(--line)", "strokeWidth": 1.5}},
        {
            "mark": {"type": "point", "size": 50, "stroke": "var(--accent)", "strokeWidth": 1.5, "opacity": 1},
            "encoding": {
                "tooltip": _TIP,
                "fill": {
                    "condition": {"test": "datum.promoted", "value": "var(--accent)"},
                    "value": "var(--card)",
                },
            },
        },
    ],
}
# The live values of each period beside the score that its version had before.
_LIVE: Specification = {
    "height": {"step": 24},
    "params": _VALUES,
    "data": {"name": "periods"},
    "transform": _tip("datum.row", "'live ' + datum.live_text", "'offline ' + datum.offline_text"),
    "encoding": {"y": _ROWS, "tooltip": _TIP},
    "layer": [
        {
            "mark": {"type": "rule", "color": "var(--band)", "strokeWidth": 7},
            "encoding": {
                "x": {
                    "field": "low",
                    "type": "quantitative",
                    "scale": _VALUE_SCALE,
                    "axis": {**_VALUE_AXIS, "tickCount": {"expr": "ceil(width / 80)"}},
                },
                "x2": {"field": "high"},
            },
        },
        {
            "mark": {"type": "point", "filled": True, "color": "var(--accent)", "size": 60, "opacity": 1},
            "encoding": {"x": {"field": "live", "type": "quantitative"}},
        },
        {
            "mark": {
                "type": "point",
                "shape": "diamond",
                "fill": "var(--card)",
                "stroke": "var(--promotion)",
                "strokeWidth": 1.5,
                "size": 70,
                "opacity": 1,
            },
            "encoding": {"x": {"field": "offline", "type": "quantitative"}},
        },
    ],
}
# How many candidates each gate stopped.
_STOPS: Specification = {
    "height": {"step": 26},
    "data": {"name": "gates"},
    "transform": _tip("datum.row", "datum.stopped + (datum.stopped == 1 ? ' candidate' : ' candidates')"),
    "encoding": {
        "y": _ROWS,
        "x": {
            "field": "stopped",
            "type": "quantitative",
            "axis": {
                "title": "candidates",
                "labelExpr": "datum.value % 1 ? '' : format(datum.value, ',d')",
                "grid": False,
                "ticks": False,
                "tickCount": {"expr": "ceil(width / 90)"},
            },
        },
        "tooltip": _TIP,
    },
    "layer": [
        {"mark": {"type": "bar", "color": "var(--bar)", "height": {"band": 0.66}, "cornerRadiusEnd": 3}},
        {
            "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": 12, "color": "var(--text)"},
            "encoding": {"text": {"field": "stopped", "type": "quantitative", "format": ",d"}},
        },
    ],
}
