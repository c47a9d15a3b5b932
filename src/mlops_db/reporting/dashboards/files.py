"""The files that Grafana reads, as they are committed in grafana/."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from mlops_db.reporting.dashboards import alert_rules, health, metrics, versions

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard


def files() -> dict[str, str]:
    """The path of each generated file below grafana/, and its text."""
    made = {f"dashboards/{module.UID}.json": _completed(module.dashboard()) for module in (health, metrics, versions)}
    made["provisioning/alerting/mlops.json"] = alert_rules.provisioning()
    return {path: _text(content) for path, content in made.items()}


def _completed(dashboard: Dashboard) -> object:
    """The dashboard, with the numbers of its panels, which alert rules name."""
    built = dashboard.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    for variable in built.templating.list_val or []:
        # The SDK writes these for each variable; Grafana has them for those of intervals only.
        variable.auto = variable.auto_min = variable.auto_count = None
    return built


def _text(content: object) -> str:
    return json.dumps(content, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
