import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import READER
from mlops_db.errors import RefusedError
from mlops_db.project import TABLES, VIEWS
from support.database import Database
from support.process import assert_failed

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

ROLE = 'mlops test "reader"'
QUOTED = '"mlops test ""reader"""'


@contextmanager
def role_of(database: Database) -> Iterator[str]:
    database.query(f"CREATE ROLE {QUOTED} NOLOGIN")
    try:
        yield QUOTED
    finally:
        database.query("RESET ROLE")
        database.query(f"DROP OWNED BY {QUOTED}")
        database.query(f"DROP ROLE {QUOTED}")


@pytest.fixture
def role(head: Database) -> Iterator[str]:
    with role_of(head) as name:
        yield name


def as_role(database: Database, role: str, statement: str) -> list[tuple[object, ...]]:
    database.query(f"SET ROLE {role}")
    try:
        return database.query(statement)
    finally:
        database.query("RESET ROLE")


def granted(database: Database) -> None:
    done = database.run("mlops-db", "grant-reader", ROLE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f'✅ Role "{ROLE}" may read v_decision_history, v_model_timeline, v_recent_monitoring, '
        "reporting.metric_history, reporting.production_periods, reporting.decision_gates, "
        f"reporting.metric_daily(timestamptz, timestamptz) of {database.settings.target}, and nothing else\n"
    )


READ = {
    **dict.fromkeys(VIEWS, 1),
    "reporting.metric_history": 1,
    "reporting.production_periods": 1,
    "reporting.decision_gates": 6,
    "reporting.metric_daily(now() - interval '1 day', now() + interval '1 day')": 1,
}


def test_it_may_read_the_views(head: Database, role: str) -> None:
    head.query("INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'psi', 0.1)")
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES ('run-1', '1', 'production')")
    head.query("INSERT INTO retraining_decisions (action) VALUES ('pending')")

    granted(head)

    assert {what: len(as_role(head, role, f"SELECT * FROM {what}")) for what in READ} == READ


@pytest.mark.parametrize(
    "statement",
    [
        *(f"SELECT * FROM {table}" for table in TABLES),
        "SELECT * FROM alembic_version",
        "SELECT * FROM mlops_internal.metric_series",
        "SELECT * FROM mlops_internal.migration_history",
        "SELECT * FROM mlops_internal.monitoring_metrics_later",
        "INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'psi')",
        "INSERT INTO retraining_decisions (action) VALUES ('promote')",
        "INSERT INTO v_model_timeline (model_version) VALUES ('1')",
        "UPDATE v_model_timeline SET status = 'production'",
        "DELETE FROM v_decision_history",
        "TRUNCATE model_versions",
        "DROP VIEW v_model_timeline",
        "SELECT mlops_internal.register_series('m', 't', 'n')",
        "CALL mlops_internal.maintain()",
        "CREATE TABLE mlops_internal.mine ()",
        "CREATE VIEW reporting.mine AS SELECT 1",
        "DELETE FROM reporting.metric_history",
        "CREATE SCHEMA mine",
        "GRANT SELECT ON v_model_timeline TO PUBLIC",
    ],
)
def test_it_may_do_nothing_else(head: Database, role: str, statement: str) -> None:
    grant(head.settings, READER, ROLE)

    try:
        as_role(head, role, statement)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState):
        return
    # GRANT by somebody who may not only warns.
    assert statement.startswith("GRANT")
    assert not head.value("SELECT has_table_privilege('pg_monitor', 'v_model_timeline', 'SELECT')")


def test_a_login_that_is_a_member_reads_too(head: Database, role: str) -> None:
    granted(head)
    head.query(f"CREATE ROLE mlops_test_grafana LOGIN PASSWORD 'grafana' IN ROLE {role}")
    try:
        settings = replace(head.settings, user="mlops_test_grafana", password="grafana")  # noqa: S106
        with psycopg.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.password,
            dbname=settings.database,
        ) as connection:
            assert connection.execute("SELECT * FROM v_model_timeline").fetchall() == []
    finally:
        head.query("DROP ROLE mlops_test_grafana")


def test_views_that_a_revision_creates_again_stay_readable(undistributed_head: Database) -> None:
    head = undistributed_head
    with role_of(head) as role:
        granted(head)

        assert head.run("alembic", "downgrade", "0015").returncode == 0
        assert head.run("alembic", "upgrade", "head").returncode == 0

        for view in VIEWS:
            as_role(head, role, f"SELECT * FROM {view}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):  # the schema was gone
            as_role(head, role, "SELECT * FROM reporting.metric_history")
        granted(head)
        as_role(head, role, "SELECT * FROM reporting.metric_history")
        check = head.run("mlops-db", "check")
        assert check.returncode == 0, check.stdout


def test_granting_twice_is_once(head: Database, role: str) -> None:
    granted(head)
    granted(head)

    assert head.value("SELECT count(*) FROM aclexplode((SELECT relacl FROM pg_class WHERE relname = %s))"
                      " WHERE grantee = %s::regrole", [VIEWS[0], role]) == 1  # fmt: skip


def test_a_role_that_can_do_more_is_refused_and_gets_nothing(head: Database, role: str) -> None:
    head.query(f"GRANT INSERT ON model_versions TO {role}")

    done = head.run("mlops-db", "grant-reader", ROLE)

    assert_failed(done, "can do more than read the views: INSERT on model_versions", "REVOKE")
    assert not head.value("SELECT has_table_privilege(%s, 'v_model_timeline', 'SELECT')", [ROLE])


@pytest.mark.parametrize(
    ("given", "told_as"),
    [
        ("SELECT (id, status) ON model_versions", "SELECT (id, status) on model_versions"),
        ("UPDATE (status) ON model_versions", "UPDATE (status) on model_versions"),
        ("USAGE ON SEQUENCE monitoring_metrics_id_seq", "USAGE on sequence monitoring_metrics_id_seq"),
        pytest.param(
            "USAGE ON SCHEMA mlops_internal",
            "USAGE on schema mlops_internal",
            marks=pytest.mark.plain_postgresql(reason="a reader of shards on the coordinator needs that"),
        ),
        ("CREATE ON SCHEMA mlops_internal", "CREATE on schema mlops_internal"),
        ("CREATE ON SCHEMA reporting", "CREATE on schema reporting"),
        ("UPDATE (metadata) ON reporting.metric_history", "UPDATE (metadata) on reporting.metric_history"),
        ("EXECUTE ON PROCEDURE mlops_internal.maintain", "EXECUTE on function mlops_internal.maintain"),
    ],
)
def test_every_way_to_do_more_is_seen(head: Database, role: str, given: str, told_as: str) -> None:
    head.query(f"GRANT {given} TO {role}")

    with pytest.raises(RefusedError, match=re.escape(told_as)):
        grant(head.settings, READER, ROLE)

    assert not head.value("SELECT has_table_privilege(%s, 'v_model_timeline', 'SELECT')", [ROLE])


@pytest.mark.parametrize("attribute", ["SUPERUSER", "NOSUPERUSER"])
def test_what_set_role_gives_is_seen(head: Database, role: str, attribute: str) -> None:
    head.query(f"CREATE ROLE mlops_test_writer {attribute}")
    try:
        head.query("GRANT INSERT ON model_versions TO mlops_test_writer")
        head.query(f"ALTER ROLE {role} NOINHERIT")
        head.query(f"GRANT mlops_test_writer TO {role}")
        with pytest.raises(RefusedError, match="INSERT on model_versions"):
            grant(head.settings, READER, ROLE)
    finally:
        head.query("DROP OWNED BY mlops_test_writer")
        head.query("DROP ROLE mlops_test_writer")


@pytest.mark.parametrize("name", ["", "none", "pg_monitors"])
def test_a_name_that_no_role_can_have_is_reported(head: Database, name: str) -> None:
    assert_failed(head.run("mlops-db", "grant-reader", name), f'no role "{name}"', "Built-in roles cannot be used.")


def test_the_owner_is_no_reader(head: Database) -> None:
    assert_failed(head.run("mlops-db", "grant-reader", head.settings.user), "can do more than read the views")


def test_a_role_that_is_not_there_is_told_how_it_is_made(head: Database) -> None:
    assert_failed(
        head.run("mlops-db", "grant-reader", "no body"), 'no role "no body"', 'CREATE ROLE "no body" NOLOGIN;'
    )


@pytest.mark.usefixtures("role")
def test_who_does_not_own_the_views_grants_nothing(head: Database) -> None:
    head.query("CREATE ROLE mlops_test_other LOGIN PASSWORD 'other'")
    try:
        head.query("GRANT SELECT ON alembic_version TO mlops_test_other")
        done = head.run("mlops-db", "grant-reader", ROLE, POSTGRES_USER="mlops_test_other", POSTGRES_PASSWORD="other")  # noqa: S106
        assert_failed(done, "owner")
    finally:
        head.query("DROP OWNED BY mlops_test_other")
        head.query("DROP ROLE mlops_test_other")
    assert not head.value("SELECT has_table_privilege(%s, 'v_model_timeline', 'SELECT')", [ROLE])


def test_a_database_behind_head_is_refused(empty: Database) -> None:
    assert_failed(empty.run("mlops-db", "grant-reader", "postgres"), "has no tables yet", "alembic upgrade head")


def test_a_database_without_reporting_is_refused(head: Database, role: str) -> None:
    granted(head)
    assert head.run("alembic", "downgrade", "0023").returncode == 0

    assert_failed(head.run("mlops-db", "grant-reader", ROLE), "0023", "alembic upgrade head")
    assert as_role(head, role, "SELECT * FROM v_model_timeline") == []
