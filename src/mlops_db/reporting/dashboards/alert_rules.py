"""Alert rules about the health of series. Each series is an alert of its own, with model, type and metric as labels.

The queries return a row for each series, also for one that is ok: so Grafana sees when it is ok again. Without series
there is nothing to alert about (`noDataState`), but a query that fails is an error that somebody should see.
"""

from __future__ import annotations

from typing import NamedTuple

from mlops_db.reporting.dashboards import health
from mlops_db.reporting.dashboards.queries import DATA_SOURCE, Query

FOLDER = "mlops"
# A provisioned text expands $labels as a variable of the environment; .Labels is the same.
_SERIES = "{{ .Labels.model }}: {{ .Labels.type }} {{ .Labels.metric }}"


class Rule(NamedTuple):
    """An alert rule.

    Attributes:
        name: the last part of its uid.
        title: its title.
        severity: the label that notification policies choose by.
        condition: what is true of a row of v_recent_monitoring while the rule fires.
        summary: what it says about a series.
        description: what that means, and what to do.
    """

    name: str
    title: str
    severity: str
    condition: str
    summary: str
    description: str


RULES = (
    Rule(
        "out-of-bounds",
        "Metric out of its bounds",
        "critical",
        "health IN ('low', 'high')",
        "is out of its bounds",
        "The newest value is below the lower or above the upper bound of the catalogue.",
    ),
    Rule(
        "failed",
        "Metric could not be computed",
        "warning",
        "health = 'failed'",
        "could not be computed",
        "The job ran, and stored that there is no value. The row's metadata may have the error.",
    ),
    Rule(
        "stale",
        "Metric is overdue",
        "warning",
        "stale",
        "has no value in its expected interval",
        "Did the job stop? A series that never had a value, although one is expected, is overdue, too.",
    ),
)


def query_of(rule: Rule) -> str:
    """The SQL of a rule."""
    return f"""
        SELECT model_name AS model, metric_type AS type, metric_name AS metric, ({rule.condition})::int::float8 AS value
          FROM public.v_recent_monitoring
         ORDER BY model, type, metric
    """


def provisioning() -> dict[str, object]:
    """The file that Grafana reads from grafana/provisioning/alerting."""
    rules = [_provisioned(rule) for rule in RULES]
    return {
        "apiVersion": 1,
        "groups": [{"orgId": 1, "name": "mlops series", "folder": FOLDER, "interval": "1m", "rules": rules}],
    }


def _provisioned(rule: Rule) -> dict[str, object]:
    return {
        "uid": f"mlops-{rule.name}",
        "title": rule.title,
        "condition": "B",
        "data": [
            _step("A", DATA_SOURCE.uid, Query(query_of(rule)).to_json()),
            _step(
                "B",
                "__expr__",
                {
                    "refId": "B",
                    "datasource": {"type": "__expr__", "uid": "__expr__"},
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
                },
            ),
        ],
        # Two evaluations that agree: a job may repair its row within a minute.
        "for": "1m",
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": f"{_SERIES} {rule.summary}",
            "description": rule.description,
            "__dashboardUid__": health.UID,
            "__panelId__": str(health.NOT_OK_PANEL),
        },
        "dashboardUid": health.UID,
        "panelId": health.NOT_OK_PANEL,
        "isPaused": False,
    }


def _step(ref_id: str, data_source: str | None, model: dict[str, object]) -> dict[str, object]:
    time = {"from": 600, "to": 0}  # the queries read no history
    return {"refId": ref_id, "relativeTimeRange": time, "datasourceUid": data_source, "model": model}
