"""Health: what is not ok, worst first, and whether a job has stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, StackingConfig
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    StackingMode,
    VisibilityMode,
)

from mlops_db.reporting.dashboards import looks
from mlops_db.reporting.dashboards.frames import MODEL, TYPE, choice, frame
from mlops_db.reporting.dashboards.queries import DATA_SOURCE, Query, chosen
from mlops_db.reporting.states import RANK, STATES

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

UID = "mlops-health"
NOT_OK_PANEL = 2  # alert rules lead there
_CHOSEN = f"{chosen('model_name', 'model')} AND {chosen('metric_type', 'type')}"
_NUMBER = {name: place for place, name in enumerate(RANK, start=1)}

_INTERVAL = "$__interval_ms * interval '1 ms'"

_COUNTS = "SELECT {} FROM public.v_recent_monitoring WHERE {}".format(
    ", ".join(f"count(*) FILTER (WHERE health = '{state.name}') AS {state.name}" for state in STATES), _CHOSEN
)
_NOT_OK = f"""
    SELECT health AS state, model_name AS model, metric_type AS type, metric_name AS metric, metric_value AS value,
           lower_threshold AS "lower bound", upper_threshold AS "upper bound", timestamp AS measured,
           extract(epoch FROM age)::float8 AS age, extract(epoch FROM expected_interval)::float8 AS "expected every",
           left(metadata ->> 'error', 200) AS error
      FROM public.v_recent_monitoring
     WHERE health <> 'ok' AND {_CHOSEN}
     ORDER BY array_position({looks.state_codes()}, health), timestamp NULLS FIRST, model, type, metric
     LIMIT 1000
"""
_FRESHNESS = f"""
    SELECT model_name AS model, metric_type AS type, count(*) AS series,
           count(*) FILTER (WHERE health IN ('stale', 'missing')) AS silent, max(timestamp) AS newest,
           extract(epoch FROM min(age))::float8 AS age,
           extract(epoch FROM min(expected_interval))::float8 AS "expected every",
           max(extract(epoch FROM age) / nullif(extract(epoch FROM expected_interval), 0))::float8 AS "oldest series"
      FROM public.v_recent_monitoring
     WHERE {_CHOSEN}
     GROUP BY model_name, metric_type
     ORDER BY "oldest series" DESC NULLS LAST, age DESC
"""
# Of each series by itself, so that PostgreSQL reads it from the index and sorts a few rows: the worst state in each
# interval, at the interval's first row, where it changes; and `stale` from when a value was due.
_STATES_OVER_TIME = f"""
    SELECT event.time, concat_ws(' · ', model_name, metric_type, metric_name) AS series, event.state
      FROM public.v_recent_monitoring AS series
     CROSS JOIN LATERAL (
         SELECT changed.*, min(changed.state) OVER () AS worst
           FROM (
               SELECT first, state, last + series.expected_interval AS due,
                      state IS DISTINCT FROM lag(state) OVER in_order AS changes,
                      first > lag(last + series.expected_interval) OVER in_order AS returns,
                      lead(first, 1, least(now(), $__timeTo())) OVER in_order AS next
                 FROM (
                     SELECT min(timestamp) AS first, max(timestamp) AS last,
                            min(array_position({looks.state_codes()}, state)) AS state
                       FROM reporting.metric_history AS history
                      WHERE $__timeFilter(timestamp)
                        AND history.model_name = series.model_name
                        AND history.metric_type = series.metric_type
                        AND history.metric_name = series.metric_name
                      GROUP BY width_bucket(timestamp, ARRAY(
                          SELECT generate_series($__timeFrom()::timestamptz, $__timeTo(), {_INTERVAL})
                      ))
                 ) AS intervals
               WINDOW in_order AS (ORDER BY first)
           ) AS beside
          CROSS JOIN LATERAL unnest(
              ARRAY[CASE WHEN changes OR returns THEN first END, CASE WHEN next > due THEN due END],
              ARRAY[state, {_NUMBER["stale"]}]
          ) AS changed (time, state)
          WHERE changed.time IS NOT NULL
     ) AS event
     WHERE event.worst < {_NUMBER["ok"]} AND {_CHOSEN}
     ORDER BY time
"""
_FAILED = f"""
    SELECT day::timestamp AT TIME ZONE 'UTC' AS time, model_name AS series, sum(failed)::float8 AS failed
      FROM reporting.metric_daily($__timeFrom(), $__timeTo())
     WHERE {_CHOSEN}
     GROUP BY day, model_name
     ORDER BY time
"""


def dashboard() -> Dashboard:
    """The dashboard on health."""
    return (
        frame(
            "mlops · health",
            uid=UID,
            description="What is not ok, worst first; whether a job has stopped; the states over time.",
            since="now-7d",
        )
        .with_variable(choice("model", "Model", MODEL))
        .with_variable(choice("type", "Type", TYPE))
        .with_panel(_counts())
        .with_panel(_not_ok())
        .with_panel(_freshness())
        .with_panel(_failed())
        .with_panel(_states_over_time())
    )


def _counts() -> stat.Panel:
    panel = (
        stat.Panel()
        .title("Series by state")
        .description("How many metric series are in each state now, worst first. The time range does not matter.")
        .datasource(DATA_SOURCE)
        .with_target(Query(_COUNTS))
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .unit("none")
        .decimals(0)
        .span(24)
        .height(4)
    )
    for state in STATES:
        # A count of 0 needs no colour.
        thresholds = looks.steps((None, "transparent"), (1, looks.COLOURS[state.name])).build()
        shown = looks.properties(displayName=f"{state.glyph} {state.name}", thresholds=thresholds)
        panel = panel.override_by_name(state.name, shown)
    return panel


def _not_ok() -> table.Panel:
    return (
        table.Panel()
        .title("Not ok, worst first")
        .description(
            "Each series whose newest value is not ok. Low and high are outside the bounds of the catalogue; drifted "
            "is what the value's own metadata says. Click on a metric to see its values."
        )
        .datasource(DATA_SOURCE)
        .with_target(Query(_NOT_OK))
        .no_value("All series are ok")
        .override_by_name("state", looks.coloured_text(looks.state_mappings(), custom_width=110))
        .override_by_name(
            "metric", looks.properties(links=[looks.link_to_metrics("Values of ${__data.fields.metric}")])
        )
        .override_by_name("value", looks.properties(decimals=4))
        .override_by_name("lower bound", looks.properties(decimals=4))
        .override_by_name("upper bound", looks.properties(decimals=4))
        .override_by_name("measured", looks.properties(unit="dateTimeAsIso", custom_width=170))
        .override_by_name("age", looks.duration())
        .override_by_name("expected every", looks.duration())
        .override_by_name("error", looks.properties(custom_inspect=True))
        .span(24)
        .height(10)
    )


def _freshness() -> table.Panel:
    late = looks.steps((None, "green"), (0.8, "yellow"), (1, "red")).build()
    return (
        table.Panel()
        .title("Freshness")
        .description(
            "Did a job stop? Of each model and type: the age of the newest value, the shortest expected interval, and "
            "how old the oldest series is as a share of its own expected interval. Above 100 % it is stale."
        )
        .datasource(DATA_SOURCE)
        .with_target(Query(_FRESHNESS))
        .override_by_name("newest", looks.properties(unit="dateTimeAsIso"))
        .override_by_name("age", looks.duration())
        .override_by_name("expected every", looks.duration())
        .override_by_name(
            "silent",
            looks.properties(
                thresholds=looks.steps((None, "text"), (1, "yellow")).build(),
                custom_cellOptions={"type": "color-text"},
            ),
        )
        .override_by_name(
            "oldest series",
            looks.properties(
                unit="percentunit",
                decimals=0,
                min=0,
                max=2,
                thresholds=late,
                custom_cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
            ),
        )
        .span(14)
        .height(10)
    )


def _failed() -> timeseries.Panel:
    return (
        timeseries.Panel()
        .title("Failed computations a day")
        .description("Rows without a value, by UTC day and model: the job ran, and the metric could not be computed.")
        .datasource(DATA_SOURCE)
        .with_target(Query(_FAILED))
        .with_transformation(looks.ONE_FRAME_EACH)
        .display_name(looks.SERIES_NAME)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(1)
        .stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
        .show_points(VisibilityMode.NEVER)
        .unit("none")
        .decimals(0)
        .min(0)
        .axis_soft_max(5)
        .span(10)
        .height(10)
    )


def _states_over_time() -> statetimeline.Panel:
    return (
        statetimeline.Panel()
        .title("States over time")
        .description(
            "The series that were not ok at some time, with the worst state of each interval. A series is stale from "
            "the moment when a value was due."
        )
        .datasource(DATA_SOURCE)
        .with_target(Query(_STATES_OVER_TIME))
        .with_transformation(looks.ONE_FRAME_EACH)
        .display_name(looks.SERIES_NAME)
        .mappings(looks.state_mappings())
        .interval("1h")
        .max_data_points(100)
        .merge_values(True)
        .show_value(VisibilityMode.NEVER)
        .per_page(20)
        .span(24)
        .height(14)
    )
