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
    made = {f"dashboards/{module.UID}.json": _numbered(module.dashboard()) for module in (health, metrics, versions)}
    made["provisioning/alerting/mlops.json"] = alert_rules.provisioning()
    return {path: _text(content) for path, content in made.items()}


def _numbered(dashboard: Dashboard) -> object:
    """The dashboard, with the numbers of its panels, which links and alert rules name."""
    built = dashboard.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return built


def _text(content: object) -> str:
    return json.dumps(content, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
