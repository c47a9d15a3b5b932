"""Ask a running Grafana whether it has what grafana/ provisions, and whether each panel has rows of the demo.

`uv run python .github/check_grafana.py --compose` starts the profile `dashboards` of docker-compose.yml with a project
and ports of its own, fills the demo, asks, and removes everything again. Without `--compose` it asks the Grafana that
runs at GRAFANA_URL (http://127.0.0.1:3000), as admin with GRAFANA_ADMIN_PASSWORD (admin).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from support.grafana import Choice, alert_rules, dashboards, interval_s, queries, replace_variables  # noqa: E402

DAYS = 90
DATA_SOURCE = "mlops-postgresql"
PATIENCE_S = 180
COMPOSE = ("docker", "compose", "--project-name", "mlops-db-check", "--profile", "dashboards")
PORTS = {"POSTGRES_PORT": "55432", "GRAFANA_PORT": "53000"}


class Grafana:
    """The API of a Grafana."""

    def __init__(self, url: str, password: str) -> None:
        """Take its address and the password of its admin."""
        self.url = url
        self.authorization = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Send GET, or POST with a body; returns the JSON of the answer, of a refusal, too."""
        request = urllib.request.Request(  # noqa: S310  (the address is the caller's)
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": self.authorization, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  (the same)
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.loads(error.read() or b"{}")

    def rows(self, sql: str, choice: Choice, panel: Mapping[str, Any] | None = None) -> list[list[Any]]:
        """The rows of a query, with its variables replaced as the browser does it."""
        query = {
            "refId": "A",
            "datasource": {"uid": DATA_SOURCE},
            "format": "table",
            "rawSql": replace_variables(sql, choice.variables),
            "intervalMs": interval_s(choice, panel or {}) * 1000,
            "maxDataPoints": 1000,
        }
        milliseconds = {"from": choice.since, "to": choice.until}
        times = {name: str(int(moment.timestamp() * 1000)) for name, moment in milliseconds.items()}
        answer = self.ask("/api/ds/query", {"queries": [query], **times})
        result = answer.get("results", {}).get("A")
        if result is None or result.get("error"):
            raise SystemExit(f"Grafana refuses a query: {result or answer}\n{sql}")
        values = result["frames"][0]["data"]["values"] if result["frames"] else []
        return [list(row) for row in zip(*values, strict=True)]


def check(grafana: Grafana) -> None:
    """Check everything; ends with the first fault."""
    health = wait_for(lambda: grafana.ask("/api/health"), lambda answer: answer.get("database") == "ok")
    print(f"Grafana {health['version']} answers")
    source = grafana.ask(f"/api/datasources/uid/{DATA_SOURCE}/health")
    require(source.get("status") == "OK", f"the data source: {source}")
    print(f"data source: {source['message']}")
    choice = all_of(grafana)
    for uid, dashboard in dashboards().items():
        stored = grafana.ask(f"/api/dashboards/uid/{uid}")
        require(stored.get("meta", {}).get("provisioned") is True, f"dashboard {uid}: {stored.get('message', stored)}")
        require(len(stored["dashboard"]["panels"]) == len(dashboard["panels"]), f"dashboard {uid} has other panels")
        for annotation in dashboard["annotations"].get("list", ()):
            found = grafana.rows(annotation["target"]["rawSql"], choice)
            print(f"{uid}, annotation {annotation['name']}: {len(found)} rows")
        for panel, target in queries(dashboard):
            found = grafana.rows(target["rawSql"], choice, panel)
            require(bool(found), f"{uid}, {panel['title']}: no rows")
            print(f"{uid}, {panel['title']}, {target['refId']}: {len(found)} rows")
    check_rules(grafana)


def all_of(grafana: Grafana) -> Choice:
    """All values of all variables, over the days of the demo."""
    until = datetime.now(timezone.utc)
    variables: dict[str, Any] = {}
    choice = Choice(until=until, since=until - timedelta(days=DAYS), variables=variables)
    for dashboard in dashboards().values():
        for variable in dashboard["templating"]["list"]:
            values = [value for (value,) in grafana.rows(variable["query"], choice)]
            require(bool(values), f"{dashboard['uid']}: the variable {variable['name']} offers nothing")
            variables[variable["name"]] = values if variable.get("multi") else values[0]
    return choice


def check_rules(grafana: Grafana) -> None:
    """The alert rules are there, and each has been evaluated without an error and fires for something in the demo."""
    stored = {rule["uid"]: rule for rule in grafana.ask("/api/v1/provisioning/alert-rules")}
    for rule in alert_rules():
        require(stored.get(rule["uid"], {}).get("provenance") == "file", f"alert rule {rule['uid']} is not provisioned")
    titles = {rule["title"] for rule in alert_rules()}
    rules = wait_for(
        lambda: {
            rule["name"]: rule
            for group in grafana.ask("/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
            for rule in group["rules"]
            if rule["name"] in titles
        },
        lambda found: found.keys() == titles and all(rule["state"] != "inactive" for rule in found.values()),
    )
    for name, rule in rules.items():
        require(rule["health"] == "ok", f"alert rule {name}: {rule['health']} {rule.get('lastError', '')}")
        print(f"alert rule {name}: {rule['state']}, {len(rule.get('alerts') or ())} series")


def wait_for(look: Any, is_there: Any) -> Any:
    """Look until it is there."""
    deadline = time.monotonic() + PATIENCE_S
    seen = None
    while time.monotonic() < deadline:
        try:
            seen = look()
            if is_there(seen):
                return seen
        except (OSError, ValueError, KeyError) as error:  # it starts
            seen = error
        time.sleep(2)
    raise SystemExit(f"not there after {PATIENCE_S} s: {seen!r}")


def require(condition: bool, otherwise: str) -> None:  # noqa: FBT001  (as assert)
    """End with a message if a condition does not hold."""
    if not condition:
        raise SystemExit(otherwise)


@contextmanager
def compose() -> Iterator[dict[str, str]]:
    """Run the profile with the demo; yields the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_"))}
    environment |= PORTS | {"GRAFANA_ADMIN_PASSWORD": password()}

    def run(*command: str) -> None:
        subprocess.run([*COMPOSE, *command], cwd=ROOT, env=environment, check=True)  # noqa: S603  (constants)

    try:
        run("up", "--detach", "--build")
        run("run", "--rm", "--no-deps", "migrate", "demo", "--days", str(DAYS))
        yield environment
    except BaseException:
        run("logs", "--no-color", "--tail=100")
        raise
    finally:
        run("down", "--volumes")


def main() -> None:
    """Read the command line, and check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compose", action="store_true", help="start the profile `dashboards` first, with the demo")
    if parser.parse_args().compose:
        with compose() as environment:
            check(Grafana(f"http://127.0.0.1:{environment['GRAFANA_PORT']}", password()))
    else:
        check(Grafana(os.environ.get("GRAFANA_URL", "http://127.0.0.1:3000"), password()))


def password() -> str:
    """The admin's."""
    return os.environ.get("GRAFANA_ADMIN_PASSWORD") or "admin"


if __name__ == "__main__":
    main()
