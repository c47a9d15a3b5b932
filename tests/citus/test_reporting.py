"""Report, health and dashboards on Citus: as owner and as reader; of one model on its shard, of all pushed down."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest

from mlops_db.admin.cluster.distribute import distribute
from mlops_db.admin.cluster.functions import make_distributable, make_plain
from mlops_db.admin.roles.granting import grant
from mlops_db.demo.fill import fill
from mlops_db.drift.declared_roles import READER
from mlops_db.migration.commands import upgrade
from mlops_db.project import alembic_ini
from mlops_db.reporting.report import drift, production, series
from mlops_db.reporting.report.window import read_window
from mlops_db.reporting.snapshot import open_snapshot
from mlops_db.server.connection import open_cursor
from mlops_db.server.cursor import SafeCursor
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from support.citus import CitusCluster
from support.cluster import connect_superuser
from support.database import Database
from support.grafana import Choice, statements

ROLE = "mlops_test_viewer"
DAYS = 90
UNTIL = datetime.now(timezone.utc)
DEFINITION = """
    SELECT pg_get_functiondef(oid), proowner::regrole::text, proacl::text, obj_description(oid, 'pg_proc')
      FROM pg_proc WHERE oid = 'reporting.metric_daily'::regproc
"""
NOTHING = Choice(UNTIL, UNTIL - timedelta(days=1), {"model": [], "type": [], "metric": [], "live": ""})


@pytest.fixture(scope="module")
def demo(two_workers: CitusCluster) -> Iterator[Database]:
    """The demo, over two workers, with a reader."""
    with two_workers.database("mlops_citus_demo", owner="mlops_owner") as database:
        settings = database.settings
        upgrade(settings)
        distribute(settings, shards=4)
        with DatabaseManager(settings) as db:
            fill(db, days=DAYS, seed=1, progress=lambda *_: None)
        with closing(connect_superuser(two_workers.coordinator, settings.database)) as superuser:
            superuser.execute(f"CREATE ROLE {ROLE} LOGIN")
            grant(settings, READER, ROLE)
            yield database
            superuser.execute(f"DROP OWNED BY {ROLE}")
            superuser.execute(f"DROP ROLE {ROLE}")


@pytest.fixture(params=["owner", "reader"])
def reader(demo: Database, request: pytest.FixtureRequest) -> Settings:
    return replace(demo.settings, user=ROLE) if request.param == "reader" else demo.settings


def run(database: Database, settings: Settings, *command: str) -> str:
    done = database.run("mlops-db", *command, POSTGRES_USER=settings.user)
    assert done.stderr == "" or "Traceback" not in done.stderr
    assert done.returncode in (0, 1), done.stderr  # 1: the demo has series that are not ok
    assert "error:" not in done.stderr, done.stderr
    return done.stdout


def test_health_names_what_is_not_ok(demo: Database, reader: Settings) -> None:
    assert "churn drift" in run(demo, reader, "health")
    of_one = run(demo, reader, "health", "--model", "churn")
    assert "churn drift" in of_one
    assert "lead_scoring" not in of_one


def test_the_report_has_the_live_values_of_the_versions(demo: Database, reader: Settings, tmp_path: Any) -> None:
    for models in ((), ("--model", "fraud")):
        page = tmp_path / "page.html"
        run(demo, reader, "report", "--out", str(page), *models)
        assert "fraud" in page.read_text(encoding="utf-8")
    with open_snapshot(reader) as cursor:
        read = production.read_production(cursor, read_window(cursor, DAYS), [])
    assert {model for model, *_ in read.live} == {"churn", "fraud", "lead_scoring"}


def plans_of(settings: Settings, models: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plans of what health and report read of the metrics."""
    plans: list[str] = []
    execute = SafeCursor.execute

    def explain(cursor: SafeCursor, query: Any, values: Any = None) -> None:
        if isinstance(query, str) and re.search(r"v_recent_monitoring|metric_history", query):
            execute(cursor, f"EXPLAIN (COSTS OFF) {query}", values)
            plans.append("\n".join(line for (line,) in cursor.fetchall()))
        execute(cursor, query, values)

    with open_snapshot(settings) as cursor, monkeypatch.context() as patched:
        window = read_window(cursor, DAYS)
        patched.setattr(SafeCursor, "execute", explain)
        series.read_series(cursor, window, models)
        production.read_production(cursor, window, models)
        drift.read_own(cursor, window, models)
    assert len(plans) == 4
    return plans


def test_one_model_is_read_on_its_shard(demo: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for plan in plans_of(demo.settings, ["churn"], monkeypatch):
        assert re.findall(r"Task Count: (\d+)", plan) == ["1"], plan
        assert "Distributed Subplan" not in plan


def test_all_models_are_read_where_they_are(reader: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for plan in plans_of(reader, [], monkeypatch):
        assert re.findall(r"Task Count: (\d+)", plan) == ["4"], plan
        assert "Distributed Subplan" not in plan


@pytest.mark.parametrize(
    ("dashboard", "place"), [(each.dashboard, each.place) for each in statements(NOTHING)], ids=str
)
def test_each_panel_runs_as_the_reader(demo: Database, dashboard: str, place: str) -> None:
    with psycopg.connect(
        host=demo.settings.host, port=5432, user=ROLE, dbname=demo.settings.database, autocommit=True
    ) as connection:

        def values(column: str) -> list[str]:
            return [value for (value,) in connection.execute(f"SELECT DISTINCT {column} FROM v_recent_monitoring")]

        variables = {"model": values("model_name"), "type": values("metric_type"), "metric": values("metric_name")}
        now = datetime.now(timezone.utc)  # UNTIL can be long before the demo was filled
        choice = Choice(now + timedelta(minutes=10), now - timedelta(days=DAYS), variables | {"live": "f1_score"})
        [statement] = [one.sql for one in statements(choice) if (one.dashboard, one.place) == (dashboard, place)]
        assert connection.execute(statement).fetchall()


def test_decisions_and_metrics_in_one_query_do_not_stop_the_coordinator(demo: Database) -> None:
    for view in ("v_decision_history", "reporting.decision_gates"):
        assert demo.value(
            f"SELECT count(DISTINCT d.model_name) FROM {view} AS d JOIN v_recent_monitoring USING (model_name)"
        )


def test_a_function_is_rewritten_and_back(demo: Database) -> None:
    [wrapped] = demo.query(DEFINITION)
    with open_cursor(demo.settings) as cursor:
        assert make_distributable(cursor) == []
        assert len(make_plain(cursor)) == 1
        cursor.execute(DEFINITION)
        [plain] = cursor.fetchall()
        assert make_plain(cursor) == []
        assert len(make_distributable(cursor)) == 1
    assert "LANGUAGE sql" in plain[0]
    assert "LANGUAGE plpgsql" in wrapped[0]
    assert plain[1:] == wrapped[1:]
    assert demo.query(DEFINITION) == [wrapped]
    body = plain[0].partition("$function$")[2].partition("$function$")[0]
    file = alembic_ini().parent / "migrations" / "versions" / "sql" / "0024_metric_daily.sql"
    assert body in file.read_text(encoding="utf-8")


def test_the_function_gives_what_the_history_has(demo: Database) -> None:
    since = UNTIL - timedelta(days=30)
    days = demo.query(
        "SELECT model_name, sum(count), sum(failed) FROM reporting.metric_daily(%s) GROUP BY 1 ORDER BY 1", [since]
    )
    assert days == demo.query(
        "SELECT model_name, count(metric_value), count(*) - count(metric_value) FROM reporting.metric_history"
        " WHERE timestamp >= date_trunc('day', %s::timestamptz, 'UTC') AND timestamp < date_trunc('day', now(), 'UTC')"
        "       + interval '1 day' GROUP BY 1 ORDER BY 1",
        [since],
    )
