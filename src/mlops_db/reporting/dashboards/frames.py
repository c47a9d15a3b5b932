"""The frame of each dashboard: its names, its time, its variables, and the links to the others."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, QueryVariable
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
)

from mlops_db.reporting.dashboards.queries import DATA_SOURCE, chosen

TAG = "mlops"
_SERIES = "public.v_recent_monitoring"

MODEL = f"SELECT DISTINCT model_name FROM {_SERIES} ORDER BY 1"
TYPE = f"SELECT DISTINCT metric_type FROM {_SERIES} WHERE {chosen('model_name', 'model')} ORDER BY 1"
METRIC = f"""
    SELECT DISTINCT metric_name FROM {_SERIES}
     WHERE {chosen("model_name", "model")} AND {chosen("metric_type", "type")} ORDER BY 1
"""
# Of models without metrics, too.
VERSIONED_MODEL = "SELECT DISTINCT model_name FROM public.v_model_timeline ORDER BY 1"


def frame(title: str, *, uid: str, description: str, since: str) -> Dashboard:
    """A dashboard without panels.

    Args:
        title: its title.
        uid: its uid, which links name.
        description: what it answers.
        since: the begin of its time, such as `now-30d`.
    """
    others = DashboardLink("mlops").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True)
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("utc")
        .time(since, "now")
        .refresh("5m")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(others.include_vars(True).as_dropdown(False))
    )


def choice(name: str, label: str, query: str) -> QueryVariable:
    """A variable of which several values can be chosen, first all of them."""
    return _variable(name, label, query).multi(True).include_all(True).current(VariableOption(False, "All", "$__all"))


def single_choice(name: str, label: str, query: str) -> QueryVariable:
    """A variable of which one value is chosen, first the first one."""
    return _variable(name, label, query)


def _variable(name: str, label: str, query: str) -> QueryVariable:
    sql = " ".join(query.split())
    refreshed = VariableRefresh.ON_DASHBOARD_LOAD
    return QueryVariable(name).label(label).datasource(DATA_SOURCE).query(sql).refresh(refreshed)
