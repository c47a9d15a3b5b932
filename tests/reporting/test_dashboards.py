"""Grafana's dashboards and alert rules, as they are committed: what PostgreSQL gets of them runs as the reader role."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from itertools import combinations
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psycopg
import pytest
import yaml
from psycopg import sql

from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import READER
from mlops_db.reporting.states import STATES
from support.database import ROOT, Database
from support.grafana import (
    FOLDER,
    Choice,
    Statement,
    alert_rules,
    dashboards,
    expand,
    interval,
    queries,
    sqlstring,
    statements,
)

DAYS = 90
ROLE = "mlops_test_dashboards"
UNTIL = datetime.now(timezone.utc)
# Each name that a model, a type or a metric may have, for Grafana's and for PostgreSQL's quoting.
HOSTILE = """o'b "x" \\ ; -- ${model} $1 %s </script> é"""
# What shows its column `time` along an axis.
OVER_TIME = ("timeseries", "statetimeline", "status-history")
NOTHING = Choice(UNTIL, UNTIL - timedelta(days=1), {"model": [], "type": [], "metric": [], "live": ""})
PLACES = [(each.dashboard, each.place) for each in statements(NOTHING)]
DASHBOARDS = dashboards()
NAMED_DASHBOARDS = pytest.mark.parametrize("uid", DASHBOARDS)


def statement_of(dashboard: str, place: str, choice: Choice) -> str:
    return next(each.sql for each in statements(choice) if (each.dashboard, each.place) == (dashboard, place))


@pytest.fixture(scope="module")
def reader(demo: Database) -> Iterator[Database]:
    """The demo, as the reader role sees it, in a session that is not in UTC."""
    demo.query(f"CREATE ROLE {ROLE} LOGIN")  # on Citus, nodes connect to each other as whoever asks
    grant(demo.settings, READER, ROLE)
    demo.query(f"SET ROLE {ROLE}")
    demo.query("SET timezone = 'Asia/Kolkata'")
    yield demo
    for statement in ("RESET ROLE", f"DROP OWNED BY {ROLE}", f"DROP ROLE {ROLE}"):
        demo.query(statement)


@pytest.fixture(scope="module")
def chosen(reader: Database) -> Choice:
    """All that the variables offer, over all days of the demo."""
    return all_of(reader, days=DAYS)


def all_of(database: Database, *, days: float) -> Choice:
    def values(query: str) -> list[str]:
        return [value for (value,) in database.query(query)]

    series = {
        variable: values(f"SELECT DISTINCT {column} FROM public.v_recent_monitoring")
        for variable, column in (("model", "model_name"), ("type", "metric_type"), ("metric", "metric_name"))
    }
    now = datetime.now(timezone.utc)  # UNTIL can be long before the demo was filled
    return Choice(now + timedelta(minutes=10), now - timedelta(days=days), series | {"live": "f1_score"})


# What PostgreSQL gets


@pytest.mark.parametrize(("dashboard", "place"), PLACES)
def test_it_runs_as_the_reader_and_finds_rows_of_the_demo(
    reader: Database, chosen: Choice, dashboard: str, place: str
) -> None:
    assert reader.query(statement_of(dashboard, place, chosen))


@pytest.mark.parametrize(("dashboard", "place"), PLACES)
def test_it_runs_when_there_is_nothing_to_choose(reader: Database, dashboard: str, place: str) -> None:
    rows = reader.query(statement_of(dashboard, place, NOTHING))
    if place not in ("variable model", "variable live", "Series by state, A") and dashboard != "alerts":
        assert rows == []


def test_what_is_drawn_over_time_is_in_the_order_of_time(reader: Database, chosen: Choice) -> None:
    drawn = 0
    for dashboard in DASHBOARDS.values():
        for panel, target in queries(dashboard):
            if panel["type"] in OVER_TIME:
                cursor = reader.connection.execute(expand(target["rawSql"], chosen, interval(chosen, panel)))
                times = [row[0] for row in cursor]
                assert cursor.description is not None
                assert cursor.description[0].name == "time", panel["title"]
                assert cursor.description[1].name == "series", panel["title"]
                assert times == sorted(times), panel["title"]
                assert min(times) >= chosen.since - timedelta(days=1), panel["title"]
                drawn += 1
    assert drawn > 5


def test_a_statement_that_reads_history_has_both_bounds() -> None:
    seen = 0
    for dashboard in DASHBOARDS.values():
        for panel, target in queries(dashboard):
            statement = target["rawSql"]
            if re.search(r"reporting\.(metric_|decision_)", statement):
                seen += 1
                assert "$__timeFilter" in statement or {"$__timeFrom()", "$__timeTo()"} <= set(
                    re.findall(r"\$__time\w+\(\)", statement)
                ), panel["title"]
    assert seen > 5


def test_names_with_quotes_find_their_rows(head: Database) -> None:
    metadata = json.dumps({"threshold": 2, "drift_detected": True, "error": HOSTILE})
    for hours in (30, 20, 10):
        head.query(
            "INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value, metadata)"
            " VALUES (%s, %s, %s, %s, 3, %s)",
            [UNTIL - timedelta(hours=hours), HOSTILE, HOSTILE, HOSTILE, metadata],
        )
    head.query(
        "INSERT INTO model_versions (model_name, mlflow_run_id, model_version, status, promoted_at, created_at)"
        " VALUES (%s, 'run', %s, 'production', %s, %s)",
        [HOSTILE, HOSTILE, UNTIL - timedelta(hours=40), UNTIL - timedelta(hours=41)],
    )
    head.query("UPDATE mlops_internal.metric_series SET upper_threshold = 2, expected_interval = '1 hour'")
    choice = Choice(
        UNTIL, UNTIL - timedelta(days=3), {"model": [HOSTILE], "type": [HOSTILE], "metric": HOSTILE, "live": HOSTILE}
    )
    empty = {each[:2] for each in statements(choice) if not head.query(each.sql)}
    assert empty == {
        ("mlops-metrics", "annotation Rollbacks"),
        ("mlops-versions", "variable live"),  # it offers metrics of the type `performance`
        ("mlops-versions", "Decisions and their gates, A"),
        ("mlops-versions", "At which gate candidates stop, A"),
    }


@pytest.fixture
def silent(head: Database) -> Database:
    """A series with an hourly value, which was silent for five hours, and is silent again."""
    start = UNTIL - timedelta(hours=20)
    for hours in (0, 1, 6):
        head.query(
            "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)"
            " VALUES (%s, 't', 'm', 1)",
            [start + timedelta(hours=hours)],
        )
    head.query("UPDATE mlops_internal.metric_series SET expected_interval = '1 hour', upper_threshold = 5")
    return head


def test_silence_is_stale_from_the_moment_when_a_value_was_due(silent: Database) -> None:
    choice = all_of(silent, days=1)
    rows = silent.query(statement_of("mlops-health", "States over time, A", choice))
    start = UNTIL - timedelta(hours=20)
    number = {state.name: place for place, state in enumerate(STATES, start=1)}
    assert [((time - start) / timedelta(hours=1), state) for time, _, state in rows] == [
        (0, number["ok"]), (2, number["stale"]), (6, number["ok"]), (7, number["stale"]),
    ]  # fmt: skip


def test_a_line_ends_where_a_value_was_due(silent: Database) -> None:
    choice = all_of(silent, days=1)
    rows = silent.query(statement_of("mlops-metrics", "${metric}: values and bounds, A", choice))
    start = UNTIL - timedelta(hours=20)
    assert [((time - start) / timedelta(hours=1), value) for time, _, value in rows] == [
        (0, 1), (1, 1), (2, None), (6, 1),
    ]  # fmt: skip
    bounds = silent.query(statement_of("mlops-metrics", "${metric}: values and bounds, B", choice))
    assert [(time, upper) for time, _, _, upper in bounds] == [(choice.since, 5), (choice.until, 5)]


def test_drift_is_a_share_of_its_threshold_in_both_directions(head: Database) -> None:
    for name, value, threshold, drifted in (
        ("score", 0.3, 0.2, True),
        ("p", 0.01, 0.05, True),
        ("p without drift", 0.1, 0.05, False),
        ("p of nothing", 0, 0.05, True),
        ("huge", 1e308, 1e-3, True),
        ("failed", None, 0.05, True),
        ("p without a flag", 0.5, 0.05, None),
    ):
        head.query(
            "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata)"
            " VALUES (%s, 'drift', %s, %s, %s)",
            [UNTIL - timedelta(hours=1), name, value, json.dumps({"threshold": threshold, "drift_detected": drifted})],
        )
    choice = all_of(head, days=1)
    rows = head.query(statement_of("mlops-metrics", "Drift, as a share of its threshold, A", choice))
    shares = {name.rpartition(" · ")[2]: share for _, name, share in rows}
    assert shares == pytest.approx(
        {"score": 1.5, "p": 5, "p without drift": 0.5, "p of nothing": 10, "huge": 10}, rel=1e-9
    )


def test_a_version_that_left_at_an_unknown_time_has_no_live_values(head: Database) -> None:
    head.query(
        "INSERT INTO model_versions (model_name, mlflow_run_id, model_version, status, promoted_at)"
        " VALUES ('m', 'run', '1', 'archived', %s)",
        [UNTIL - timedelta(days=2)],
    )
    head.query(
        "INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)"
        " VALUES (%s, 'm', 'performance', 'f1_score', 0.5)",
        [UNTIL - timedelta(days=1)],
    )
    choice = all_of(head, days=3)
    ((_, _, _, until, *_, live, days),) = head.query(
        statement_of("mlops-versions", "Live metric of each period beside the offline score, A", choice)
    )
    assert (until, live, days) == (None, None, 0)


def test_the_live_mean_is_that_of_all_values_not_of_the_days(head: Database) -> None:
    head.query(
        "INSERT INTO model_versions (model_name, mlflow_run_id, model_version, status, promoted_at)"
        " VALUES ('m', 'run', '1', 'production', %s)",
        [UNTIL - timedelta(days=4)],
    )
    for days_ago, value in ((2, 0.2), (2, 0.2), (2, 0.2), (1, 0.6)):
        head.query(
            "INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)"
            " VALUES (%s, 'm', 'performance', 'f1_score', %s)",
            [UNTIL - timedelta(days=days_ago), value],
        )
    choice = all_of(head, days=3)
    ((*_, live, days),) = head.query(
        statement_of("mlops-versions", "Live metric of each period beside the offline score, A", choice)
    )
    assert (live, days) == (pytest.approx(0.3), 2)


def test_each_rule_fires_for_the_series_that_the_view_names(reader: Database) -> None:
    for title, condition in (
        ("Metric out of its bounds", "health IN ('low', 'high')"),
        ("Metric could not be computed", "health = 'failed'"),
        ("Metric is overdue", "health IN ('stale', 'missing')"),
    ):
        rows = reader.query(statement_of("alerts", title, NOTHING))
        named = sql.SQL("SELECT model_name, metric_type, metric_name FROM v_recent_monitoring WHERE {}").format(
            sql.SQL(condition)
        )
        firing = {tuple(labels) for *labels, value in rows if value > 0}
        assert firing == set(reader.connection.execute(named)), title
        assert firing, title
        assert len(rows) == reader.value("SELECT count(*) FROM v_recent_monitoring")


def test_the_gates_have_the_order_of_the_view(reader: Database) -> None:
    names = reader.query("SELECT DISTINCT position, gate FROM reporting.decision_gates WHERE position <= 6 ORDER BY 1")
    panel = next(each for each in DASHBOARDS["mlops-versions"]["panels"] if each["title"].startswith("Decisions"))
    filtered = re.findall(r"position = (\d)\) AS (\w+)", panel["targets"][0]["rawSql"])
    assert [(int(place), gate) for place, gate in filtered] == names


PAGE = (ROOT / "docs" / "dashboards.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("statement", re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL))
def test_what_the_page_gives_to_other_tools_runs(reader: Database, statement: str) -> None:
    assert reader.query(statement)


# The files


@pytest.mark.one_postgresql
@pytest.mark.skipif(sys.version_info < (3, 11), reason="grafana-foundation-sdk needs Python 3.11")
def test_the_committed_files_are_those_of_the_code() -> None:
    from mlops_db.reporting.dashboards.files import files  # noqa: PLC0415  (see above)

    committed = {path: (FOLDER / path).read_text(encoding="utf-8") for path in files()}
    assert committed == files(), "run `mlops-db docs` and commit it"


@pytest.mark.one_postgresql
@NAMED_DASHBOARDS
def test_every_dashboard_says_what_it_is(uid: str) -> None:
    dashboard = DASHBOARDS[uid]
    assert dashboard["title"]
    assert dashboard["description"]
    assert (dashboard["timezone"], dashboard["refresh"]) == ("utc", "5m")
    for panel in dashboard["panels"]:
        assert panel["title"], panel
        if panel["type"] != "row":
            assert panel["description"], panel["title"]
            assert panel["targets"], panel["title"]


@pytest.mark.one_postgresql
@NAMED_DASHBOARDS
def test_panels_fit_the_grid_and_lie_beside_each_other(uid: str) -> None:
    panels = DASHBOARDS[uid]["panels"]
    cells = [
        {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        for at in (panel["gridPos"] for panel in panels)
    ]  # fmt: skip
    assert all(0 <= x < 24 for panel in cells for x, _ in panel)
    assert not [pair for pair in combinations(range(len(cells)), 2) if cells[pair[0]] & cells[pair[1]]]
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.one_postgresql
def test_everything_uses_the_provisioned_data_source() -> None:
    provisioned = yaml.safe_load((FOLDER / "provisioning/datasources/mlops.yaml").read_text(encoding="utf-8"))
    ((uid, type_),) = [(source["uid"], source["type"]) for source in provisioned["datasources"]]
    references = [
        reference
        for file in FOLDER.rglob("*.json")
        for reference in named("datasource", json.loads(file.read_text(encoding="utf-8")))
    ]
    expression = {"uid": "__expr__", "type": "__expr__"}
    assert {json.dumps(each, sort_keys=True) for each in references if each != expression} == {
        json.dumps({"uid": uid, "type": type_}, sort_keys=True)
    }
    assert {rule["data"][0]["datasourceUid"] for rule in alert_rules()} == {uid}


def named(name: str, content: Any) -> Iterator[Any]:
    """Everything of that name in a JSON document."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == name:
                yield value
            yield from named(name, value)
    elif isinstance(content, list):
        for each in content:
            yield from named(name, each)


@pytest.mark.one_postgresql
@NAMED_DASHBOARDS
def test_statements_use_the_variables_of_their_dashboard(uid: str) -> None:
    names = [variable["name"] for variable in DASHBOARDS[uid]["templating"]["list"]]
    for statement in statements_in(DASHBOARDS[uid]):
        assert set(re.findall(r"\$\{(\w+)", statement)) <= set(names), statement
        assert not re.findall(r"\$(?!\{|__)\w+", statement), statement
    # A variable refers only to those before it.
    for place, variable in enumerate(DASHBOARDS[uid]["templating"]["list"]):
        assert set(re.findall(r"\$\{(\w+)", variable["query"])) <= set(names[:place])


def statements_in(dashboard: Mapping[str, Any]) -> Iterator[str]:
    yield from named("rawSql", dashboard)
    for variable in dashboard["templating"]["list"]:
        yield variable["query"]


def test_links_lead_to_dashboards_and_variables_that_exist(reader: Database, chosen: Choice) -> None:
    followed = 0
    for dashboard in DASHBOARDS.values():
        assert dashboard["links"][0]["tags"] == dashboard["tags"]
        assert dashboard["links"][0]["keepTime"]
        for panel, target in queries(dashboard):
            for link in [each for links in named("value", panel["fieldConfig"]["overrides"])
                         if isinstance(links, list) for each in links if "url" in each]:  # fmt: skip
                followed += 1
                cursor = reader.connection.execute(expand(target["rawSql"], chosen, interval(chosen, panel)))
                assert cursor.description is not None
                columns = {column.name for column in cursor.description}
                parts = urlsplit(link["url"])
                assert parts.query.endswith("&${__url_time_range}")
                variables = dict(parse_qsl(parts.query.removesuffix("&${__url_time_range}")))
                known = DASHBOARDS[parts.path.removeprefix("/d/")]["templating"]["list"]
                assert {name.removeprefix("var-") for name in variables} == {each["name"] for each in known}
                fields = [
                    re.fullmatch(r"\$\{__data\.fields\.(\w+):percentencode\}", each) for each in variables.values()
                ]
                assert {field[1] for field in fields if field} <= columns
                assert all(fields)
    assert followed == 1


@pytest.mark.one_postgresql
def test_alert_rules_lead_to_the_panel_with_what_is_not_ok() -> None:
    rules = alert_rules()
    assert len({rule["uid"] for rule in rules}) == len(rules) == 3
    for rule in rules:
        panels = DASHBOARDS[rule["dashboardUid"]]["panels"]
        assert next(each["title"] for each in panels if each["id"] == rule["panelId"]).startswith("Not ok")
        assert (rule["noDataState"], rule["execErrState"]) == ("OK", "Error")
        texts = json.dumps(rule["annotations"])
        labels = set(re.findall(r"\.Labels\.(\w+)", texts))
        assert (
            labels == {"model", "type", "metric"} <= set(re.findall(r" AS (\w+)", rule["data"][0]["model"]["rawSql"]))
        )
        assert "$" not in texts  # Grafana would take it for a variable of the environment


@pytest.mark.one_postgresql
def test_every_state_is_a_glyph_and_a_word() -> None:
    health = DASHBOARDS["mlops-health"]
    shown = {text for options in named("options", health) for text in named("text", options) if isinstance(text, str)}
    assert {f"{state.glyph} {state.name}" for state in STATES} <= shown
    counts = next(each for each in health["panels"] if each["type"] == "stat")
    assert [each["matcher"]["options"] for each in counts["fieldConfig"]["overrides"]] == [each.name for each in STATES]


@pytest.mark.one_postgresql
def test_grafana_reads_the_sdk_s_version() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    pinned = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (image,) = re.findall(r"grafana/grafana:(\d+\.\d+)\.\d+\n", compose)
    assert re.findall(r"grafana-foundation-sdk==\d+!(\d+\.\d+)\.0", pinned) == [image]


# The expansion


@pytest.mark.one_postgresql
def test_expansion_is_grafanas() -> None:
    choice = Choice(
        until=datetime(2026, 6, 15, 12, tzinfo=timezone.utc),
        since=datetime(2026, 6, 8, 12, tzinfo=timezone(timedelta(hours=2))),
        variables={"model": ["a'b", 'c"d'], "live": "f1"},
    )
    assert sqlstring([]) == ""
    assert expand("${model:sqlstring} ${live:sqlstring}", choice) == """'a''b','c\\"d' 'f1'"""
    assert expand("$__timeFilter(at)", choice) == "at BETWEEN '2026-06-08T10:00:00Z' AND '2026-06-15T12:00:00Z'"
    group = "floor(extract(epoch from at)/3600)*3600"
    assert expand("$__timeGroup(at, $__interval), $__timeGroup(at, '1h') $__interval_ms", choice, "1h") == (
        f'{group} AS "time", {group} 3600000'
    )
    with pytest.raises(ValueError, match="no macro"):
        expand("$__timeX()", choice)
    assert interval(choice, {"maxDataPoints": 100}) == "2h"
    assert interval(choice, {}) == "5m"
    assert interval(choice, {"interval": "1d"}) == "1d"
    assert Statement("a", "b", "c").sql == "c"


def test_the_reader_of_these_tests_is_one(reader: Database) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.query("SELECT * FROM public.monitoring_metrics")
