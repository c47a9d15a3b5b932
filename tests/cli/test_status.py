import json
import re
from datetime import timezone

import pytest
from alembic import command
from psycopg import sql

from mlops_db.migration.commands import alembic_config
from mlops_db.project import BASELINE_VIEWS, TABLES, VIEWS
from mlops_db.revisions.graph import revisions
from mlops_db.server.guests import REVOKE_CREATE
from support.citus import has_citus
from support.database import Database
from support.json_shapes import check
from support.process import SECRET
from support.sessions import another_session
from support.terminal import on_a_terminal, without_colours

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

HEAD = revisions()[-1].id


def status_json(database: Database) -> tuple[int, dict[str, object]]:
    done = database.run("mlops-db", "status", "--json")
    status: dict[str, object] = json.loads(done.stdout)
    check(status)
    return done.returncode, status


def test_at_head_it_prints_where_what_and_how_much_and_exits_0(head: Database) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) SELECT g, g FROM generate_series(1, 1200) g")

    done = head.run("mlops-db", "status")

    version = re.escape(head.value("SHOW server_version"))
    rows = dict.fromkeys((*TABLES, *VIEWS), "0") | {"model_versions": "1,200", "v_model_timeline": "1,200"}
    tables = "".join(rf"{name:<20}  table  {rows[name]:>5} +\d+ kB\n" for name in TABLES)
    views = "".join(rf"{name:<20}  view   {rows[name]:>5}\n" for name in VIEWS)
    cluster, nodes = (r"cluster   .+\nfullest   .+\n", r"\nnode .+\n.+coordinator.+\n") if has_citus(head) else ("", "")
    expected = rf"""database  {re.escape(head.settings.target)}
server    PostgreSQL {version}
revision  {HEAD} \(head\)
{cluster}
object                kind    rows +size
{tables}{views}{nodes}"""
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(expected, done.stdout), done.stdout


def test_json_at_head_holds_the_same_for_machines(head: Database) -> None:
    head.query("INSERT INTO retraining_decisions (action) VALUES ('reject')")

    code, status = status_json(head)

    assert code == 0
    objects = {item["name"]: item for item in status.pop("objects")}  # type: ignore[attr-defined]
    assert (status.pop("cluster", None) is not None) == has_citus(head)
    assert status == {
        "schema": "status-1",
        "target": head.settings.target,
        "server": head.value("SHOW server_version"),
        "current": HEAD,
        "head": HEAD,
        "is_newer": False,
        "others": [],
        "pending": [],
        "state": "head",
        "everybody_may_create": head.value("SELECT has_schema_privilege('public', 'public', 'CREATE')"),
        "missing_reporting": [],
        "upkeep": [],
        "production": [],
        "newest_metric": None,
        "newest_metric_age_s": None,
    }
    assert list(objects) == [*TABLES, *VIEWS]
    assert {name: item["kind"] for name, item in objects.items()} == dict.fromkeys(TABLES, "table") | dict.fromkeys(
        VIEWS, "view"
    )
    assert {name: item["rows"] for name, item in objects.items()} == dict.fromkeys((*TABLES, *VIEWS), 0) | {
        "retraining_decisions": 1,
        "v_decision_history": 1,
    }
    assert all(item["present"] and item["exact"] for item in objects.values())
    assert objects["retraining_decisions"]["bytes"] == head.value(
        "SELECT pg_total_relation_size('retraining_decisions')"
    )
    assert all(objects[name]["bytes"] is None for name in VIEWS)


def test_an_empty_database_is_behind_with_everything_pending(empty: Database) -> None:
    code, status = status_json(empty)
    text = empty.run("mlops-db", "status")

    assert (code, text.returncode) == (1, 1)
    assert (status["state"], status["current"], status["head"]) == ("behind", None, HEAD)
    assert status["pending"] == [{"id": revision.id, "title": revision.title} for revision in revisions()]
    assert not any(item["present"] for item in status["objects"])  # type: ignore[attr-defined]
    assert "revision  base\n" in text.stdout
    assert re.search(r"^model_versions +table +missing$", text.stdout, re.MULTILINE)
    assert "alembic upgrade head" in text.stdout
    # Looking leaves nothing behind.
    of_extensions = "SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e'"
    assert not empty.query(
        f"SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND oid NOT IN ({of_extensions})"
    )


def test_a_database_one_revision_behind_shows_which_one_is_pending(head: Database) -> None:
    command.downgrade(alembic_config(head.settings), "-1")

    code, status = status_json(head)
    text = head.run("mlops-db", "status")

    last, before = revisions()[-1], revisions()[-2]
    assert (code, text.returncode) == (1, 1)
    assert (status["state"], status["current"]) == ("behind", before.id)
    assert status["pending"] == [{"id": last.id, "title": last.title}]
    assert f"pending   {last.id} {last.title}\n" in text.stdout


@pytest.mark.parametrize("missing", ["v_recent_monitoring", "retraining_decisions"])
def test_an_object_that_is_missing_at_head_is_drift(head: Database, missing: str) -> None:
    kind = "VIEW" if missing in VIEWS else "TABLE"
    head.query(f"DROP {kind} {missing} CASCADE")

    code, status = status_json(head)
    text = head.run("mlops-db", "status")

    assert (code, text.returncode) == (1, 1)
    assert (status["state"], status["current"]) == ("drifted", HEAD)
    assert missing in [item["name"] for item in status["objects"] if not item["present"]]  # type: ignore[attr-defined]
    assert re.search(rf"^missing +.*{missing}", text.stdout, re.MULTILINE)
    assert "next      `mlops-db check --sql` prints the repair" in text.stdout
    head.psql(head.run("mlops-db", "check", "--sql").stdout)
    assert head.run("mlops-db", "status").returncode == 0


@pytest.mark.parametrize("drop", ["VIEW reporting.decision_gates", "SCHEMA reporting CASCADE"])
def test_an_object_of_reporting_that_is_missing_is_drift(head: Database, drop: str) -> None:
    head.query(f"DROP {drop}")
    code, status = status_json(head)
    assert (code, status["state"]) == (1, "drifted")
    assert "reporting.decision_gates" in status["missing_reporting"]  # type: ignore[operator]
    init = head.run("mlops-db", "init")
    assert init.returncode == 1
    assert "somebody dropped reporting." in init.stderr
    head.psql(head.run("mlops-db", "check", "--sql").stdout)
    assert status_json(head)[0] == 0


def test_objects_of_other_schemas_do_not_count(empty: Database) -> None:
    empty.query("CREATE SCHEMA other")
    empty.query("CREATE TABLE other.model_versions ()")
    empty.connection.execute(
        sql.SQL("ALTER DATABASE {} SET search_path = other").format(sql.Identifier(empty.settings.database))
    )
    _, status = status_json(empty)
    assert not any(item["present"] for item in status["objects"])  # type: ignore[attr-defined]


def test_a_role_that_may_not_read_the_tables_still_sees_what_is_there(head: Database) -> None:
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('a', '1'), ('b', '2')")
    head.query("ANALYZE model_versions")
    head.query(f"CREATE ROLE mlops_test_reader LOGIN PASSWORD '{SECRET}'")
    head.query("GRANT SELECT ON alembic_version TO mlops_test_reader")
    try:
        done = head.run("mlops-db", "status", "--json", POSTGRES_USER="mlops_test_reader", POSTGRES_PASSWORD=SECRET)
    finally:
        head.query("DROP OWNED BY mlops_test_reader")
        head.query("DROP ROLE mlops_test_reader")

    status = json.loads(done.stdout)
    first, view = status["objects"][0], status["objects"][-1]
    assert (done.returncode, status["state"]) == (0, "head")
    assert (first["rows"], first["exact"]) == (2, False)  # the planner's estimate
    assert (view["present"], view["rows"]) == (True, None)


@pytest.mark.parametrize(
    ("variables", "code", "state"),
    [
        ({"POSTGRES_HOST": "localhost", "POSTGRES_PORT": "1"}, 2, "unreachable"),
        ({"MLOPS_DB_NAME": "mlops_test_nowhere"}, 1, "error"),
        ({"POSTGRES_PORT": "x"}, 1, "error"),
    ],
)
def test_json_has_failures_too(empty: Database, variables: dict[str, str], code: int, state: str) -> None:
    done = empty.run("mlops-db", "status", "--json", **variables)
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (code, "")
    check(answer)
    assert (answer["schema"], answer["state"]) == ("error-1", state)


def test_on_a_terminal_it_is_a_table(head: Database) -> None:
    code, shown = on_a_terminal("status", environment=head.environment, columns=120)

    assert code == 0
    shown = without_colours(shown)
    assert f"{HEAD} (head)" in shown
    for name in (*TABLES, *VIEWS):
        assert re.search(rf"│ {name} +│ (table|view) +│ +0 │", shown), shown


def test_on_a_terminal_that_is_too_narrow_each_cell_has_a_line(head: Database) -> None:
    code, shown = on_a_terminal("status", environment=head.environment, columns=40, NO_COLOR="1")
    assert code == 0
    assert "object: v_recent_monitoring\nkind: view\nrows: 0\n" in without_colours(shown)


@pytest.mark.parametrize("name", ["[red]x", "a [/b] c", "[link=x]"])
def test_a_name_that_looks_like_markup_is_shown_as_it_is(empty: Database, name: str) -> None:
    empty.connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        code, shown = on_a_terminal("status", environment=empty.environment, MLOPS_DB_NAME=name)
    finally:
        empty.connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))
    assert code == 1
    assert f"/{name}" in shown


# Models in production, and the newest metric


def put_into_production(database: Database, *models: str, since: str | None) -> None:
    database.query(
        """
        INSERT INTO model_versions (mlflow_run_id, model_version, model_name, status, promoted_at)
        SELECT 'run of ' || name, '7', name, 'production', %s FROM unnest(%s::text[]) AS name
        """,
        [since, list(models)],
    )


def test_models_in_production_and_the_newest_metric_are_named(head: Database) -> None:
    head.query(REVOKE_CREATE)
    since = "2026-03-01 06:30:00+00:00"
    put_into_production(head, "churn", since=since)
    put_into_production(head, "by\x1b[2Jhand", since=None)
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('not in production', '1')")
    head.query("""
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name) VALUES
        (now() - interval '36 hours 30 seconds', 'drift', 'psi'), (now() - interval '90 days', 'drift', 'share')
    """)
    newest = head.value("SELECT max(timestamp) FROM monitoring_metrics")

    text = head.run("mlops-db", "status")
    code, status = status_json(head)

    assert (code, text.returncode, text.stderr) == (0, 0, "")
    assert (
        f"""
models    by\\x1b[2Jhand 7 in production since an unknown time
          churn 7 in production since 2026-03-01 06:30 UTC
metrics   the newest is of {newest:%Y-%m-%d %H:%M} UTC, 1 day 12 hours ago
"""
        in text.stdout
    )
    assert status["production"] == [
        {"model_name": "by\x1b[2Jhand", "model_version": "7", "since": None},
        {"model_name": "churn", "model_version": "7", "since": "2026-03-01T06:30:00+00:00"},
    ]
    assert status["newest_metric"] == newest.astimezone(timezone.utc).isoformat()
    assert 36 * 3600 < float(str(status["newest_metric_age_s"])) < 37 * 3600


def test_many_models_are_counted(head: Database) -> None:
    put_into_production(head, *(f"m{number:02}" for number in range(12)), since="2026-03-01")
    done = head.run("mlops-db", "status")
    assert "          m09 7 in production since 2026-03-01 00:00 UTC\n          and 2 more\n" in done.stdout


def test_before_the_reporting_views_they_are_left_out(head: Database) -> None:
    put_into_production(head, "churn", since=None)
    head.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'psi')")
    command.downgrade(alembic_config(head.settings), "0023")
    code, status = status_json(head)
    assert code == 1
    assert (status["production"], status["newest_metric"]) == (None, None)
    assert "models" not in head.run("mlops-db", "status").stdout.partition("object")[0]


# What cannot be counted


def replace_views(database: Database, **conditions: str) -> None:
    for name, condition in conditions.items():
        database.query(f"DROP VIEW {name}")
        database.query(f"CREATE VIEW {name} AS SELECT 1 AS one WHERE {condition}")


def fails_with(database: Database, kind: str) -> str:
    """The name of a function that fails in that way, and says what time it has."""
    database.query(f"""
        CREATE FUNCTION {kind}_fault() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN RAISE {kind} USING MESSAGE = 'a {kind}, with ' || current_setting('statement_timeout'); END $$
    """)
    return f"{kind}_fault()"


def test_all_counts_together_have_two_seconds(head: Database) -> None:
    asleep = "pg_sleep(600) IS NOT NULL"
    replace_views(head, v_decision_history=asleep, v_model_timeline=asleep)
    replace_views(head, v_recent_monitoring=fails_with(head, "raise_exception"))

    code, status = status_json(head)

    objects = {item["name"]: item for item in status["objects"]}  # type: ignore[attr-defined]
    assert (code, status["state"]) == (0, "head")
    assert {objects[name]["rows"] for name in TABLES} == {0}
    assert {objects[name]["rows"] for name in BASELINE_VIEWS} == {None}
    # Two have slept for as long as they were let: half of the time, and a quarter.
    reason = objects["v_recent_monitoring"]["uncounted"]
    if has_citus(head):  # a query of the workers has five seconds
        assert reason.endswith("with 5s")
        return
    left = re.search(r"with (\d+)ms$", reason)
    assert left
    assert int(left[1]) <= 2000 / 8


def test_a_failure_is_reported_with_its_object_and_the_rest_is_counted(head: Database) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('a', '1')")
    replace_views(
        head,
        v_decision_history=fails_with(head, "disk_full"),
        v_model_timeline=fails_with(head, "data_corrupted"),
        v_recent_monitoring=fails_with(head, "out_of_memory"),
    )
    with another_session(head, "a writer", "LOCK TABLE retraining_decisions"):
        done = head.run("mlops-db", "status")

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^model_versions +table +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^retraining_decisions +table +(not counted|~0)$", done.stdout, re.MULTILINE)
    for name, kind in zip(BASELINE_VIEWS, ("disk_full", "data_corrupted", "out_of_memory"), strict=True):
        assert re.search(rf"^{name} +view +not counted$", done.stdout, re.MULTILINE)
        assert f"\n{name} was not counted: a {kind}, with " in done.stdout
    assert "\nretraining_decisions was not counted: canceling statement due to lock timeout\n" in done.stdout


def test_rows_that_came_past_the_triggers_are_reported(head: Database) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    head.query("SET session_replication_role = replica")
    head.query("INSERT INTO monitoring_metrics (id, metric_type, metric_name) VALUES (9, 'drift', 'psi')")

    done = head.run("mlops-db", "status")

    assert (done.returncode, done.stderr) == (0, "")
    output = "would register series of monitoring_metrics that v_recent_monitoring lacks, and advance sequences"
    assert f"\nupkeep    `mlops-db maintain` {output} whose next ids are taken\n" in done.stdout
