"""How the panels look: colours of states, columns of tables, links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from mlops_db.reporting.states import STATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana_foundation_sdk.models.dashboard import ValueMapping as Mapped

METRICS_UID = "mlops-metrics"
GREY = "text"
COLOURS = {
    "low": "dark-red",
    "high": "red",
    "failed": "orange",
    "stale": "yellow",
    "missing": "dark-yellow",
    "drifted": "purple",
    "ok": "green",
}
# A series in a panel has its name from the column `series`.
SERIES_NAME = "${__field.labels.series}"
# One frame for each series: in a common frame, a value of one series would be a gap of the others.
ONE_FRAME_EACH = DataTransformerConfig(id_val="prepareTimeSeries", options={"format": "multi"})


def state_codes() -> str:
    """The states as an SQL array, worst first. The position in it, from 1, is the number of a state."""
    return f"ARRAY[{', '.join(repr(state.name) for state in STATES)}]"


def state_mappings() -> list[Mapped]:
    """Glyph, word and colour for the name of a state, and for its number."""
    shown = {
        state.name: ValueMappingResult(text=f"{state.glyph} {state.name}", color=COLOURS[state.name], index=place)
        for place, state in enumerate(STATES)
    }
    numbers = {str(place): result for place, result in enumerate(shown.values(), start=1)}
    return [ValueMap(shown | numbers)]


def word_mappings(words: Mapping[str, tuple[str, str]]) -> list[Mapped]:
    """Text and colour for each word."""
    return [
        ValueMap(
            {
                word: ValueMappingResult(text=text, color=colour, index=place)
                for place, (word, (text, colour)) in enumerate(words.items())
            }
        )
    ]


def steps(*colours: tuple[float | None, str]) -> ThresholdsConfig:
    """Colours from values on; the first one has None."""
    return (
        ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=colour) for value, colour in colours])
    )


def properties(**given: Any) -> list[DynamicConfigValue]:
    """The options of an override; `custom_width=100` is `custom.width`."""
    return [
        DynamicConfigValue(id_val=name.replace("custom_", "custom.", 1), value=value) for name, value in given.items()
    ]


def coloured_text(mappings: list[Mapped], **more: Any) -> list[DynamicConfigValue]:
    """A column of a table whose text has the colour of its mapping."""
    return properties(mappings=mappings, custom_cellOptions={"type": "color-text"}, **more)


def duration() -> list[DynamicConfigValue]:
    """A column with seconds, shown as days, hours, minutes."""
    return properties(unit="dtdurations", decimals=0)


def link_to_metrics(title: str) -> dict[str, object]:
    """The link from a row with model, type and metric to that series on the dashboard of metrics."""
    variables = {f"var-{name}": f"${{__data.fields.{name}:percentencode}}" for name in ("model", "type", "metric")}
    url = f"/d/{METRICS_UID}?{urlencode(variables, safe='${}:')}&${{__url_time_range}}"
    return {"title": title, "url": url, "targetBlank": False}
