"""Metrics: the values of series with their bounds, day by day, and drift as a share of its threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import statushistory, timeseries
from grafana_foundation_sdk.builders.common import VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Row
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)

from mlops_db.reporting.dashboards import looks
from mlops_db.reporting.dashboards.frames import METRIC, MODEL, TYPE, choice, frame
from mlops_db.reporting.dashboards.queries import DATA_SOURCE, AnnotationSource, Query, chosen

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

UID = looks.METRICS_UID
_CHOSEN = " AND ".join(
    chosen(column, variable)
    for column, variable in (("model_name", "model"), ("metric_type", "type"), ("metric_name", "metric"))
)
_KEY = "model_name, metric_type, metric_name"
_SERIES = "concat_ws(' · ', model_name, metric_type, metric_name) AS series"
_DAY_AND_A_HALF_MS = 36 * 3600 * 1000

# low_is_drift is NULL where there is no value, which least() would pass over, and where nothing tells the direction.
# A share of 1000 % is as bad as any above it; the limits of the threshold keep the division within a double. Grouped by
# the threshold first, PostgreSQL takes it out of the metadata once, not for each of its uses, and sorts no metadata.
_DRIFT = f"""
    SELECT to_timestamp(begin) AS time, {_SERIES},
           max(CASE WHEN low_is_drift THEN own_threshold / greatest(least_value, own_threshold / 10)
                    ELSE greatest(least(greatest_value, own_threshold * 10), 0) / own_threshold END) AS share
      FROM (
          SELECT floor(date_part('epoch', timestamp) * 1000 / $__interval_ms) * $__interval_ms / 1000 AS begin,
                 {_KEY}, own_threshold, low_is_drift, min(metric_value) AS least_value,
                 max(metric_value) AS greatest_value
            FROM reporting.metric_history
           WHERE $__timeFilter(timestamp) AND {_CHOSEN}
           GROUP BY begin, {_KEY}, own_threshold, low_is_drift
      ) AS measured
     WHERE own_threshold BETWEEN 1e-100 AND 1e100 AND low_is_drift IS NOT NULL
     GROUP BY begin, {_KEY}
     ORDER BY time, series
"""
# A row without a value begins each gap: where the next value came later than expected.
_VALUES = f"""
    WITH measured AS (
        SELECT {_KEY}, timestamp, metric_value,
               lead(timestamp) OVER (PARTITION BY {_KEY} ORDER BY timestamp) AS next
          FROM reporting.metric_history
         WHERE $__timeFilter(timestamp) AND {_CHOSEN}
    )
    SELECT timestamp AS time, {_SERIES}, metric_value AS value FROM measured
    UNION ALL
    SELECT measured.timestamp + expected_interval, {_SERIES}, NULL
      FROM measured JOIN public.v_recent_monitoring USING ({_KEY})
     WHERE next > measured.timestamp + expected_interval
     ORDER BY time
"""
_BOUNDS = f"""
    SELECT edge AS time, {_SERIES}, lower_threshold AS "lower bound", upper_threshold AS "upper bound"
      FROM public.v_recent_monitoring
     CROSS JOIN unnest(ARRAY[$__timeFrom(), $__timeTo()]::timestamptz[]) AS edge
     WHERE num_nonnulls(lower_threshold, upper_threshold) > 0 AND {_CHOSEN}
     ORDER BY time
"""
_DAILY = f"""
    SELECT day::timestamp AT TIME ZONE 'UTC' AS time, {_SERIES}, minimum, mean, maximum
      FROM reporting.metric_daily($__timeFrom(), $__timeTo())
     WHERE {_CHOSEN}
     ORDER BY time
"""
_PROMOTIONS = """
    SELECT since AS time, concat(model_name, ': ', previous_version || ' → ', model_version) AS text,
           model_name AS tags
      FROM reporting.production_periods
     WHERE $__timeFilter(since) AND {} AND {}
     ORDER BY time
"""


def dashboard() -> Dashboard:
    """The dashboard on metrics."""
    return (
        frame(
            "mlops · metrics",
            uid=UID,
            description="Values with their bounds, day by day, and drift as a share of its threshold.",
            since="now-30d",
        )
        .with_variable(choice("model", "Model", MODEL))
        .with_variable(choice("type", "Type", TYPE))
        .with_variable(choice("metric", "Metric", METRIC))
        .annotation(_annotation("Promotions", "blue", "NOT returned"))
        .annotation(_annotation("Rollbacks", "orange", "returned"))
        .with_panel(_drift())
        .with_row(Row("${metric}").repeat("metric"))
        .with_panel(_values())
        .with_panel(_daily())
    )


def _annotation(name: str, colour: str, condition: str) -> AnnotationQuery:
    source = AnnotationSource(_PROMOTIONS.format(condition, chosen("model_name", "model")))
    return AnnotationQuery().name(name).datasource(DATA_SOURCE).enable(True).icon_color(colour).target(source)


def _drift() -> statushistory.Panel:
    share = looks.steps((None, "green"), (0.5, "yellow"), (0.8, "orange"), (1, "red"))
    return (
        statushistory.Panel()
        .title("Drift, as a share of its threshold")
        .description(
            "The worst value of each day, for series whose values bring a threshold of their own. From 100 % on it is "
            "drift; of a p-value the threshold as a share of the value, because low means drift. Capped at 1000 %. "
            "Without a value, or where the row does not say whether that is drift, there is no cell."
        )
        .datasource(DATA_SOURCE)
        .with_target(Query(_DRIFT))
        .with_transformation(looks.ONE_FRAME_EACH)
        .display_name(looks.SERIES_NAME)
        .unit("percentunit")
        .decimals(0)
        .thresholds(share)
        .interval("1d")
        .max_data_points(100)
        .show_value(VisibilityMode.NEVER)
        .span(24)
        .height(10)
    )


def _values() -> timeseries.Panel:
    bounds = looks.properties(
        displayName=f"{looks.SERIES_NAME} ${{__field.name}}",
        color={"mode": "fixed", "fixedColor": "red"},
        custom_lineStyle={"fill": "dash", "dash": [8, 6]},
        custom_lineWidth=1,
        custom_showPoints="never",
        custom_hideFrom={"legend": True, "tooltip": False, "viz": False},
    )
    return (
        _time_series("${metric}: values and bounds")
        .description(
            "Each value as it was measured, with the bounds of the catalogue. The line ends where no value came within "
            "the expected interval, or where a value could not be computed."
        )
        .with_target(Query(_VALUES))
        .with_target(Query(_BOUNDS, ref_id="B"))
        .override_by_query("B", bounds)
        .span(14)
    )


def _daily() -> timeseries.Panel:
    named = f"{looks.SERIES_NAME} ${{__field.name}}"
    thin = looks.properties(displayName=named, custom_lineWidth=1, custom_lineStyle={"fill": "dot", "dash": [2, 4]})
    return (
        _time_series("${metric}: minimum, mean and maximum of each day")
        .description("By UTC day. A day without a value is a gap.")
        .with_target(Query(_DAILY))
        .override_by_name("minimum", thin)
        .override_by_name("maximum", thin)
        .insert_nulls(_DAY_AND_A_HALF_MS)
        .span(10)
    )


def _time_series(title: str) -> timeseries.Panel:
    legend = VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return (
        timeseries.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_transformation(looks.ONE_FRAME_EACH)
        .display_name(looks.SERIES_NAME)
        .draw_style(GraphDrawStyle.LINE)
        .span_nulls(False)
        .show_points(VisibilityMode.AUTO)
        .point_size(4)
        .unit("short")
        .legend(legend)
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .height(9)
    )
