"""The SQL of Grafana's dashboards and alert rules, expanded as Grafana expands it. Benchmarks use it, too.

Grafana's browser code replaces variables and $__interval, its server replaces macros, and PostgreSQL gets the text.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from support.database import ROOT

FOLDER = ROOT / "grafana"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# The intervals that Grafana rounds to, in seconds, each with the length from which on the next one is taken.
_ROUND = [(60, 90), (120, 210), (300, 450), (600, 750), (900, 1050), (1200, 1500), (1800, 2700), (3600, 5400),
          (7200, 9000), (10_800, 16_200), (21_600, 32_400), (43_200, 86_400), (86_400, 604_800), (604_800, 1_814_400),
          (2_592_000, 3_628_800)]  # fmt: skip
_PANEL_WIDTH = 1400  # pixels; as many points are asked for if a panel sets no number


class Statement(NamedTuple):
    """A statement of a dashboard.

    Attributes:
        dashboard: the dashboard's uid; `alerts` for a rule.
        place: the panel's title and the query's letter, or `variable model`, `annotation Promotions`, the rule's title.
        sql: what PostgreSQL gets.
    """

    dashboard: str
    place: str
    sql: str


@dataclass(frozen=True)
class Choice:
    """What a person chose on a dashboard.

    Attributes:
        since: the begin of the time range.
        until: its end.
        variables: the values of each variable. `All` is the list of all its values.
    """

    until: datetime
    since: datetime
    variables: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


def dashboards() -> dict[str, Any]:
    """Each committed dashboard by its uid."""
    loaded = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((FOLDER / "dashboards").glob("*.json"))]
    return {dashboard["uid"]: dashboard for dashboard in loaded}


def alert_rules() -> list[dict[str, Any]]:
    """The committed alert rules."""
    (group,) = json.loads((FOLDER / "provisioning/alerting/mlops.json").read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def queries(dashboard: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each panel of a dashboard with each of its queries."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel, target


def statements(choice: Choice) -> Iterator[Statement]:
    """Every statement of the dashboards and of the alert rules, as PostgreSQL gets it."""
    for uid, dashboard in dashboards().items():
        for variable in dashboard["templating"]["list"]:
            yield Statement(uid, f"variable {variable['name']}", expand(variable["query"], choice))
        for annotation in dashboard["annotations"].get("list", ()):
            sql = annotation["target"]["rawSql"]
            yield Statement(uid, f"annotation {annotation['name']}", expand(sql, choice))
        for panel, target in queries(dashboard):
            sql = expand(target["rawSql"], choice, interval(choice, panel))
            yield Statement(uid, f"{panel['title']}, {target['refId']}", sql)
    for rule in alert_rules():
        yield Statement("alerts", rule["title"], expand(rule["data"][0]["model"]["rawSql"], choice))


def expand(sql: str, choice: Choice, interval: str = "1m") -> str:
    """A statement with its variables and macros replaced."""
    replaced = replace_variables(sql, choice.variables)
    milliseconds = int(interval[:-1]) * _UNITS[interval[-1]] * 1000
    replaced = replaced.replace("$__interval_ms", str(milliseconds)).replace("$__interval", interval)
    return re.sub(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)", lambda match: _macro(match, replaced, choice), replaced)


def replace_variables(sql: str, variables: Mapping[str, str | Sequence[str]]) -> str:
    """A statement with its variables replaced, which Grafana's browser code does."""
    return re.sub(r"\$\{(\w+):sqlstring\}", lambda match: sqlstring(variables[match[1]]), sql)


def sqlstring(value: str | Sequence[str]) -> str:
    """The format `sqlstring`: single quotes are doubled, and double quotes get a backslash."""
    values = [value] if isinstance(value, str) else value
    return ",".join("'{}'".format(each.replace("'", "''").replace('"', '\\"')) for each in values)


def interval(choice: Choice, panel: Mapping[str, Any]) -> str:
    """$__interval as text, such as `2h`."""
    seconds = interval_s(choice, panel)
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def interval_s(choice: Choice, panel: Mapping[str, Any]) -> int:
    """$__interval: the time range through the panel's number of points, rounded, but at least the panel's minimum."""
    points = panel.get("maxDataPoints") or _PANEL_WIDTH
    length = (choice.until - choice.since) / timedelta(seconds=1) / points
    least = panel.get("interval") or "1m"  # the data source's minimum is one minute
    rounded = next((step for step, limit in _ROUND if length < limit), 31_536_000)
    return max(rounded, int(least[:-1]) * _UNITS[least[-1]])


def _macro(match: re.Match[str], sql: str, choice: Choice) -> str:
    name, arguments = match[1], [argument.strip(" ") for argument in match[2].split(",")]
    if name == "__timeGroup" and sql[sql.index(match[0]) + len(match[0])] == ",":
        name = "__timeGroupAlias"
    since, until = _quoted(choice.since), _quoted(choice.until)
    if name == "__timeFilter":
        return f"{arguments[0]} BETWEEN {since} AND {until}"
    if name == "__timeFrom":
        return since
    if name == "__timeTo":
        return until
    if name in ("__timeGroup", "__timeGroupAlias"):
        length = arguments[1].strip("'")
        seconds = int(length[:-1]) * _UNITS[length[-1]]
        group = f"floor(extract(epoch from {arguments[0]})/{seconds})*{seconds}"
        return f'{group} AS "time"' if name.endswith("Alias") else group
    raise ValueError(f"Grafana has no macro {name}")


def _quoted(moment: datetime) -> str:
    return f"'{moment.astimezone(timezone.utc).isoformat().replace('+00:00', 'Z')}'"
