import psycopg
import pytest
from alembic import command
from psycopg import sql

from mlops_db.migration.commands import alembic_config
from mlops_db.server.guests import REVOKE_CREATE
from support.database import Database
from support.process import SECRET, assert_failed

pytestmark = pytest.mark.full_postgresql

SUCCESS = "✅ Database initialized successfully\n"
SIX = """\
  - model_versions
  - monitoring_metrics
  - retraining_decisions
  - v_decision_history
  - v_model_timeline
  - v_recent_monitoring
"""


def test_the_first_run_prints_the_specifications_lines_and_the_second_has_nothing_to_do(empty: Database) -> None:
    name = "mlops_test_init"
    try:
        first = empty.run("mlops-db", "init", MLOPS_DB_NAME=name)
        with psycopg.connect(empty.connection.info.dsn, password=empty.settings.password, dbname=name) as connection:
            connection.execute(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
        second = empty.run("mlops-db", "init", MLOPS_DB_NAME=name)
        status = empty.run("mlops-db", "status", MLOPS_DB_NAME=name)
    finally:
        empty.connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))

    assert (first.returncode, first.stdout) == (
        0,
        f"Creating database '{name}'...\n✅ Database '{name}' created successfully\n{SUCCESS}Created 6 tables:\n{SIX}",
    )
    assert (second.returncode, second.stdout, second.stderr) == (
        0,
        f"Database '{name}' already exists\n{SUCCESS}Nothing to do, these 6 tables are there:\n{SIX}",
        "",
    )
    assert status.returncode == 0


def test_a_database_that_is_behind_is_brought_to_head_with_its_rows(head: Database) -> None:
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run', '1')")
    command.downgrade(alembic_config(head.settings), "-1")

    done = head.run("mlops-db", "init")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(SUCCESS + "Created 6 tables:\n" + SIX)
    assert head.run("mlops-db", "status").returncode == 0
    assert head.query("SELECT mlflow_run_id FROM model_versions") == [("run",)]


def test_success_is_not_claimed_for_a_database_that_lost_an_object(head: Database) -> None:
    head.query("DROP VIEW v_recent_monitoring")
    done = head.run("mlops-db", "init")
    assert "✅" not in done.stdout
    assert_failed(done, "v_recent_monitoring")


def test_a_refused_statement_is_one_line_and_a_hint(empty: Database) -> None:
    """A role that may connect and not create tables is what most managed servers hand out first."""
    empty.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    empty.query(f"CREATE ROLE mlops_test_reader LOGIN PASSWORD '{SECRET}'")
    try:
        done = empty.run("mlops-db", "init", POSTGRES_USER="mlops_test_reader", POSTGRES_PASSWORD=SECRET)
    finally:
        empty.query("DROP ROLE mlops_test_reader")
    assert_failed(done, "permission denied", "mlops_test_reader")
    assert done.returncode == 1


def test_a_broken_half_is_finished_by_the_same_command(empty: Database) -> None:
    """The upgrade stops at the third revision, and goes on from there when what stopped it has gone."""
    empty.query("CREATE TYPE retraining_decisions AS ENUM ('in the way')")

    stopped = empty.run("mlops-db", "init")
    empty.query("DROP TYPE retraining_decisions")
    done = empty.run("mlops-db", "init")

    assert_failed(stopped, "retraining_decisions")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(SIX)


def test_what_the_database_sets_for_its_sessions_does_no_harm(empty: Database) -> None:
    for setting in ("search_path = pg_catalog", "timezone = 'Asia/Kolkata'", "client_encoding = latin1"):
        name = sql.Identifier(empty.settings.database)
        empty.connection.execute(sql.SQL(f"ALTER DATABASE {{}} SET {setting}").format(name))

    done = empty.run("mlops-db", "init")

    assert done.returncode == 0, done.stderr
    assert empty.value("SELECT to_regclass('public.model_versions') IS NOT NULL")
