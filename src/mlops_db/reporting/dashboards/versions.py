"""Versions: what is and was in production, the decisions with their gates, and scores before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import barchart, statetimeline, table, timeseries
from grafana_foundation_sdk.models.common import GraphDrawStyle, VisibilityMode, VizOrientation
from grafana_foundation_sdk.models.dashboard import (
    DashboardRegexMapOptions,
    DataTransformerConfig,
    RegexMap,
    ValueMappingResult,
)

from mlops_db.reporting.dashboards import looks
from mlops_db.reporting.dashboards.frames import VERSIONED_MODEL, choice, frame, single_choice
from mlops_db.reporting.dashboards.queries import DATA_SOURCE, Query, chosen, chosen_text
from mlops_db.schema.limits import GATES

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

UID = "mlops-versions"
_RESULTS = {
    "passed": ("✔", "green"),
    "failed": ("✖", "red"),
    "not run": ("–", looks.GREY),  # noqa: RUF001  (a dash)
    "unknown": ("?", "yellow"),
}
_ACTIONS = {
    "promote": ("▲ promote", "green"),
    "reject": ("✖ reject", "red"),
    "pending": ("◷ pending", "yellow"),
}
_MODEL = chosen("model_name", "model")
_IN_RANGE = "since < $__timeTo() AND coalesce(until, now()) > $__timeFrom()"
_DAYS = "extract(epoch FROM coalesce(until, CASE WHEN in_production THEN now() END) - since)::float8"

_LIVE = "SELECT DISTINCT metric_name FROM public.v_recent_monitoring WHERE metric_type = 'performance' ORDER BY 1"
_NOW = f"""
    SELECT model_name AS model, model_version AS version, since, {_DAYS} AS "in production", f1_score AS "F1",
           f1_delta AS "F1 change", brier_score AS "Brier", brier_delta AS "Brier change"
      FROM reporting.production_periods
     WHERE in_production AND {_MODEL}
     ORDER BY model
"""
# Grafana joins it: a reader may not read on Citus what is on the coordinator and on the workers in the same query.
_NOT_OK = f"""
    SELECT model_name AS model, count(*) FILTER (WHERE health <> 'ok') AS "series not ok"
      FROM public.v_recent_monitoring
     WHERE {_MODEL}
     GROUP BY model_name
     ORDER BY model
"""
# A version without `since` was put into production by hand, and one without `until` may have ended at any time.
_OVER_TIME = f"""
    SELECT greatest(since, $__timeFrom()) AS time, model_name AS series,
           concat(model_version, CASE WHEN returned THEN ' ↩' END) AS version
      FROM reporting.production_periods
     WHERE {_IN_RANGE} AND {_MODEL}
     UNION ALL
    SELECT until, model_name, NULL
      FROM reporting.production_periods AS period
     WHERE until BETWEEN $__timeFrom() AND $__timeTo() AND {_MODEL}
       AND NOT EXISTS (
           SELECT FROM reporting.production_periods AS next
            WHERE next.model_name = period.model_name AND next.since = period.until
       )
     ORDER BY time
"""
_PERIODS = f"""
    SELECT model_name AS model, model_version AS version, since, coalesce(until, CASE WHEN in_production THEN now() END)
           AS until, {_DAYS} AS "in production", in_production AS now, returned AS rollback,
           previous_version AS "instead of", f1_score AS "F1", f1_delta AS "F1 change", brier_score AS "Brier",
           brier_delta AS "Brier change"
      FROM reporting.production_periods
     WHERE {_IN_RANGE} AND {_MODEL}
     ORDER BY since DESC
"""
_DECISIONS = """
    SELECT decision_timestamp AS decided, model_name AS model, model_version AS version, action, {gates},
           string_agg(concat(gate, ': ', result), ', ' ORDER BY position) FILTER (WHERE position > {known})
               AS "other gates"
      FROM reporting.decision_gates
     WHERE $__timeFilter(decision_timestamp) AND {chosen}
     GROUP BY id, decision_timestamp, model_name, model_version, action
     ORDER BY decided DESC
     LIMIT 1000
""".format(
    gates=", ".join(
        f"max(result) FILTER (WHERE position = {place}) AS {gate}" for place, gate in enumerate(GATES, start=1)
    ),
    known=len(GATES),
    chosen=_MODEL,
)
_SCORES = f"""
    SELECT created_at AS time, model_name AS series, f1_score AS "F1", brier_score AS "Brier"
      FROM public.v_model_timeline
     WHERE $__timeFilter(created_at) AND {_MODEL}
     ORDER BY time
"""
# A mean of values above 1e140 would not fit into a double on its way.
_LIVE_BESIDE_OFFLINE = f"""
    SELECT period.model_name AS model, model_version AS version, since, ends AS until,
           f1_score AS "offline F1", brier_score AS "offline Brier", live.mean AS live, live.days
      FROM reporting.production_periods AS period
     CROSS JOIN LATERAL (SELECT coalesce(until, CASE WHEN in_production THEN now() END) AS ends) AS known
      LEFT JOIN LATERAL (
          SELECT sum(mean * count) / sum(count) AS mean, count(mean) AS days
            FROM reporting.metric_daily($__timeFrom(), $__timeTo()) AS daily
           WHERE daily.model_name = period.model_name AND metric_type = 'performance'
             AND metric_name = {chosen_text("live")} AND abs(mean) < 1e140
             AND day >= (since AT TIME ZONE 'UTC')::date
             AND day < (ends AT TIME ZONE 'UTC')::date + CASE WHEN until IS NULL THEN 1 ELSE 0 END
      ) AS live ON true
     WHERE {_IN_RANGE} AND {chosen("period.model_name", "model")}
     ORDER BY since DESC
"""
_STOPS = f"""
    SELECT gate, count(*) AS candidates
      FROM (
          SELECT DISTINCT ON (id) gate, position
            FROM reporting.decision_gates
           WHERE $__timeFilter(decision_timestamp) AND result = 'failed' AND {_MODEL}
           ORDER BY id, position
      ) AS stopped
     GROUP BY gate
     ORDER BY min(position), gate
"""
# A model without a version in production has only the second query's row.
_IN_PRODUCTION = DataTransformerConfig(
    id_val="filterByValue",
    options={
        "filters": [{"fieldName": "version", "config": {"id": "isNotNull", "options": {}}}],
        "type": "include",
        "match": "all",
    },
)


def dashboard() -> Dashboard:
    """The dashboard on versions."""
    return (
        frame(
            "mlops · versions",
            uid=UID,
            description="What is and was in production, the decisions with their gates, scores before and after.",
            since="now-1y",
        )
        .with_variable(choice("model", "Model", VERSIONED_MODEL))
        .with_variable(single_choice("live", "Live metric", _LIVE))
        .with_panel(_now())
        .with_panel(_over_time())
        .with_panel(_decisions())
        .with_panel(_scores())
        .with_panel(_stops())
        .with_panel(_live_beside_offline())
        .with_panel(_periods())
    )


def _table(title: str, sql: str) -> table.Panel:
    panel = (
        table.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Query(sql))
        .override_by_name("since", looks.properties(unit="dateTimeAsIso"))
        .override_by_name("until", looks.properties(unit="dateTimeAsIso"))
        .override_by_name("in production", looks.duration())
    )
    for score in ("F1", "Brier", "offline F1", "offline Brier", "live"):
        panel = panel.override_by_name(score, looks.properties(decimals=3))
    for change, (below, above) in {"F1 change": ("red", "green"), "Brier change": ("green", "red")}.items():
        # A change of 0 is none.
        colours = looks.steps((None, below), (0, looks.GREY), (1e-9, above)).build()
        panel = panel.override_by_name(
            change, looks.properties(decimals=3, thresholds=colours, custom_cellOptions={"type": "color-text"})
        )
    return panel


def _now() -> table.Panel:
    not_ok = looks.steps((None, "green"), (1, "red")).build()
    return (
        _table("In production now", _NOW)
        .description(
            "The version of each model that is in production, since when, its scores before it was promoted, beside "
            "those of the version before it, and how many of the model's series are not ok."
        )
        .with_target(Query(_NOT_OK, ref_id="B"))
        .with_transformation(DataTransformerConfig(id_val="joinByField", options={"byField": "model", "mode": "outer"}))
        .with_transformation(_IN_PRODUCTION)
        .override_by_name(
            "series not ok", looks.properties(thresholds=not_ok, custom_cellOptions={"type": "color-text"})
        )
        .span(24)
        .height(6)
    )


def _over_time() -> statetimeline.Panel:
    rollback = RegexMap(
        DashboardRegexMapOptions(pattern="(.* ↩)", result=ValueMappingResult(text="$1", color="orange", index=0))
    )
    return (
        statetimeline.Panel()
        .title("In production over time")
        .description("The version in production. ↩ is one that had been in production before: a rollback.")
        .datasource(DATA_SOURCE)
        .with_target(Query(_OVER_TIME))
        .with_transformation(
            DataTransformerConfig(
                id_val="partitionByValues",
                options={"fields": ["series"], "keepFields": False, "naming": {"asLabels": True}},
            )
        )
        .display_name(looks.SERIES_NAME)
        .mappings([rollback])
        .line_width(1)
        .fill_opacity(60)
        .merge_values(False)
        .show_value(VisibilityMode.ALWAYS)
        .span(24)
        .height(7)
    )


def _decisions() -> table.Panel:
    panel = (
        _table("Decisions and their gates", _DECISIONS)
        .description(
            "✔ passed, ✖ failed, – not run: the evaluation stops at the first gate that fails. "  # noqa: RUF001
            "? has a result that says neither."
        )
        .override_by_name("decided", looks.properties(unit="dateTimeAsIso", custom_width=170))
        .override_by_name("action", looks.coloured_text(looks.word_mappings(_ACTIONS), custom_width=110))
    )
    for gate in GATES:
        panel = panel.override_by_name(gate, looks.coloured_text(looks.word_mappings(_RESULTS), custom_align="center"))
    return panel.span(24).height(10)


def _scores() -> timeseries.Panel:
    named = f"{looks.SERIES_NAME} ${{__field.name}}"
    brier = looks.properties(custom_axisPlacement="right", custom_lineStyle={"fill": "dash", "dash": [8, 6]})
    return (
        timeseries.Panel()
        .title("F1 and Brier score of each version")
        .description(
            "The scores that each version was registered with, at that time. F1 on the left: higher is better. Brier, "
            "dashed, on the right: lower is better."
        )
        .datasource(DATA_SOURCE)
        .with_target(Query(_SCORES))
        .with_transformation(looks.ONE_FRAME_EACH)
        .display_name(named)
        .draw_style(GraphDrawStyle.LINE)
        .show_points(VisibilityMode.ALWAYS)
        .point_size(7)
        .unit("short")
        .decimals(3)
        .override_by_name("Brier", brier)
        .span(14)
        .height(10)
    )


def _stops() -> barchart.Panel:
    return (
        barchart.Panel()
        .title("At which gate candidates stop")
        .description("How many decisions failed first at each gate, in the order of the evaluation.")
        .datasource(DATA_SOURCE)
        .with_target(Query(_STOPS))
        .x_field("gate")
        .orientation(VizOrientation.HORIZONTAL)
        .show_value(VisibilityMode.ALWAYS)
        .unit("none")
        .decimals(0)
        .min(0)
        .span(10)
        .height(10)
    )


def _live_beside_offline() -> table.Panel:
    return (
        _table("Live metric of each period beside the offline score", _LIVE_BESIDE_OFFLINE)
        .description(
            "The mean of the values of the chosen performance metric on the days of each period in the time range, "
            "beside the scores that the version had before. The day of a change counts for the version that came."
        )
        .span(24)
        .height(9)
    )


def _periods() -> table.Panel:
    return (
        _table("Periods in production", _PERIODS)
        .description("Every time that a version was in production, newest first, rollbacks included.")
        .span(24)
        .height(9)
    )
