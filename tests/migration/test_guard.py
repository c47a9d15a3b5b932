"""What a run refuses before it changes anything: the loss of rows in production, and a database that is not ours."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import DataLossError, UnknownRevisionError, UnmanagedDatabaseError
from mlops_db.migration import commands
from mlops_db.migration.commands import alembic_config
from mlops_db.migration.guard.sql_losses import find_losses
from mlops_db.server.connection import open_connection
from mlops_db.settings import Settings
from support.database import Database
from support.process import assert_failed
from support.projects import Checkout, sql
from support.sessions import another_session, wait_until
from support.snapshot import Progress, everything

pytestmark = pytest.mark.libraries

A_METRIC = "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'share', 0.5)"
TWO_MODELS = "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run-1', '1'), ('run-2', '2')"


def production(database: Database) -> Settings:
    return replace(database.settings, environment="production", lock_timeout=100)


def tables(database: Database) -> list[tuple[str]]:
    return database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")


@pytest.fixture
def baseline(empty: Database) -> Database:
    commands.upgrade(empty.settings, "0004")
    return empty


# The loss of rows


def test_production_refuses_to_lose_rows_before_anything_changes_and_says_how_many(baseline: Database) -> None:
    baseline.query(A_METRIC)
    baseline.query(TWO_MODELS)
    before = everything(baseline)

    done = baseline.run("alembic", "downgrade", "base", MLOPS_ENV="production")

    assert_failed(done, "2 rows of model_versions", "1 row of monitoring_metrics", "allow-data-loss=true")
    assert "retraining_decisions" not in done.stdout, "it is empty"
    assert everything(baseline) == before


def test_production_loses_rows_with_the_option(baseline: Database) -> None:
    baseline.query(TWO_MODELS)

    done = baseline.run("alembic", "-x", "allow-data-loss=true", "downgrade", "base", MLOPS_ENV="production")

    assert done.returncode == 0, done.stdout
    assert "2 rows of model_versions" in done.stderr
    assert tables(baseline) == [("alembic_version",)]


@pytest.mark.slow
def test_development_does_not_call_a_loss_what_may_have_been_copied(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(
        sql("CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (1)"),
        sql("CREATE TABLE copied AS TABLE kept", "DROP TABLE kept"),
    )
    command.upgrade(checkout.config(head.settings), "head")

    done = checkout.alembic(head, "downgrade", "-1")

    warning, *_ = done.stderr.splitlines()
    assert warning == "warning: this downgrade may lose 1 row of kept"
    assert head.query("TABLE copied") == [(1,)]


def test_a_loss_in_the_last_of_several_steps_stops_the_first(baseline: Database) -> None:
    baseline.query(TWO_MODELS)
    before = everything(baseline)

    with pytest.raises(DataLossError, match="lose 2 rows of model_versions; nothing was changed"):
        commands.downgrade(production(baseline), "base")

    assert everything(baseline) == before


def test_steps_that_stop_short_of_the_rows_are_free(baseline: Database) -> None:
    baseline.query(TWO_MODELS)
    commands.downgrade(production(baseline), "0001")
    assert tables(baseline) == [("alembic_version",), ("model_versions",)]


def test_empty_tables_do_not_stand_in_the_way(head: Database) -> None:
    commands.downgrade(production(head), "base")
    assert tables(head) == [("alembic_version",)]


def test_an_empty_table_goes_whatever_its_name(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    name = '50% of "x" :y; z'
    checkout.add(f"op.create_table({name!r}, sa.Column('id', sa.Integer))", f"op.drop_table({name!r})")
    config = checkout.config(production(head))
    command.upgrade(config, "head")

    command.downgrade(config, "-1")

    assert head.query("SELECT tablename FROM pg_tables WHERE tablename = %s", [name]) == []


def test_rows_do_not_stand_in_the_way_of_an_upgrade(baseline: Database) -> None:
    commands.downgrade(baseline.settings, "0003")
    baseline.query(TWO_MODELS)
    baseline.query("UPDATE model_versions SET status = 'staging'")
    commands.upgrade(production(baseline))
    assert baseline.value("SELECT count(*) FROM v_model_timeline") == 2


def test_development_warns_with_the_counts_and_goes_on(baseline: Database) -> None:
    baseline.query(TWO_MODELS)
    baseline.query(A_METRIC)
    progress = StringIO()

    commands.downgrade(baseline.settings, "base", progress=progress)

    warning, *_ = progress.getvalue().splitlines()
    assert warning == "warning: this downgrade loses 1 row of monitoring_metrics, 2 rows of model_versions"
    assert tables(baseline) == [("alembic_version",)]


# Columns, names, and what cannot be read


def one_column(folder: Path, definition: str) -> Checkout:
    """A revision that adds a column to model_versions, and takes it away again."""
    checkout = Checkout(folder)
    checkout.add(
        sql(f"ALTER TABLE model_versions ADD COLUMN {definition}"),
        f"op.drop_column('model_versions', {definition.split(maxsplit=1)[0]!r})",
    )
    return checkout


UNREADABLE = """
    if op.get_bind().execute(sa.text("SELECT count(*) FROM extra")).scalar() < 2:
        op.drop_table("extra")
"""
NOTHING: dict[str, object] = {}


@pytest.mark.parametrize(
    ("definition", "own", "lost"),
    [
        ("note text", NOTHING, 0),
        ("note text", {"run-2": "mine"}, 1),
        ("note text DEFAULT 'none'", NOTHING, 0),
        ("note text DEFAULT 'none'", {"run-2": "mine"}, 1),
        ("note text DEFAULT 'none'", {"run-2": None}, 1),
        ("note varchar(20) NOT NULL DEFAULT 'it''s'", NOTHING, 0),
        ("note text DEFAULT '50%'", NOTHING, 0),
        ("rank integer DEFAULT -1", NOTHING, 0),
        ("rank integer DEFAULT -1", {"run-1": 1, "run-2": -1}, 1),
        ("flag boolean NOT NULL DEFAULT false", NOTHING, 0),
        ("flag boolean NOT NULL DEFAULT false", {"run-1": True, "run-2": True}, 2),
        ("seen timestamptz DEFAULT now()", NOTHING, 2),
        ("doubled double precision GENERATED ALWAYS AS (f1_score * 2) STORED", NOTHING, 0),
        ("details jsonb DEFAULT '{}'", NOTHING, 0),
        ("details json DEFAULT '{}'", {"run-1": '{"own": 1}'}, 1),
        ("default_note text", {"run-2": "mine"}, 1),
        ("constraint_kind text", {"run-2": "mine"}, 1),
        ("identity_no integer", {"run-2": 7}, 1),
        ("price numeric(10,2) NOT NULL DEFAULT 0", NOTHING, 0),
        ("price numeric(10,2) NOT NULL DEFAULT 0", {"run-2": "0.01"}, 1),
        ("share double precision DEFAULT 1e20", NOTHING, 0),
        ("tags integer[] DEFAULT '{}'", NOTHING, 0),
        ("tags text[] DEFAULT ARRAY[]::text[]", {"run-2": ["mine"]}, 1),
    ],
)
def test_a_column_counts_by_the_rows_that_hold_a_value_of_their_own(
    head: Database, tmp_path: Path, definition: str, own: dict[str, object], lost: int
) -> None:
    config = one_column(tmp_path, definition).config(production(head))
    head.query(TWO_MODELS)
    command.upgrade(config, "head")
    name = definition.split(maxsplit=1)[0]
    for run, value in own.items():
        head.query(f"UPDATE model_versions SET {name} = %s WHERE mlflow_run_id = %s", [value, run])
    before = everything(head)

    if not lost:
        command.downgrade(config, "-1")
        assert head.value("SELECT count(*) FROM model_versions") == 2
        return
    with pytest.raises(CommandError, match=rf"lose {lost} rows? of model_versions\.{name};"):
        command.downgrade(config, "-1")
    assert everything(head) == before


def test_quoted_names_are_read_as_postgresql_reads_them(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(
        """
        op.execute('CREATE SCHEMA "Other one"')
        op.create_table('Odd "name', sa.Column('Two words', sa.Text), schema='Other one')
        op.create_table('model_Versions', sa.Column('a', sa.Text))
        """,
        """
        op.drop_table('model_Versions')
        op.drop_column('Odd "name', 'Two words', schema='Other one')
        """,
    )
    config = checkout.config(production(head))
    command.upgrade(config, "head")
    head.query("""INSERT INTO "Other one"."Odd ""name" VALUES ('x')""")
    head.query("""INSERT INTO "model_Versions" VALUES ('x'), ('y')""")
    before = everything(head)

    with pytest.raises(CommandError) as refused:
        command.downgrade(config, "-1")

    assert '2 rows of "model_Versions", 1 row of "Other one"."Odd ""name"."Two words";' in str(refused.value)
    assert everything(head) == before


@pytest.fixture
def unreadable(head: Database, tmp_path: Path) -> Checkout:
    """At a revision whose downgrade asks the database what to do."""
    checkout = Checkout(tmp_path)
    checkout.add(sql("CREATE TABLE extra (id int)"), UNREADABLE)
    command.upgrade(checkout.config(head.settings), "head")
    return checkout


def test_production_guards_a_downgrade_without_readable_sql_while_it_runs(head: Database, unreadable: Checkout) -> None:
    head.query("INSERT INTO extra VALUES (1)")

    with pytest.raises(CommandError, match=f"1 row of extra; revision {unreadable.head} was not reverted") as refused:
        command.downgrade(unreadable.config(production(head)), "-1")

    assert isinstance(refused.value.__cause__, DataLossError)
    assert head.query("TABLE extra") == [(1,)]

    head.query("DELETE FROM extra")
    command.downgrade(unreadable.config(production(head)), "-1")
    assert head.value("SELECT to_regclass('extra')") is None


def test_development_runs_a_downgrade_that_cannot_be_read_with_a_warning(head: Database, unreadable: Checkout) -> None:
    config = unreadable.config(head.settings)
    config.attributes["progress"] = progress = StringIO()

    command.downgrade(config, "-1")

    assert f"warning: this downgrade may lose what revision {unreadable.head} takes away" in progress.getvalue()
    assert head.value("SELECT to_regclass('extra')") is None


# Rows that come while the run is on its way


def test_a_row_that_comes_after_the_look_is_not_lost(baseline: Database) -> None:
    progress = Progress("downgrade 0002", lambda: baseline.query(A_METRIC))

    with pytest.raises(DataLossError, match="1 row of monitoring_metrics"):
        commands.downgrade(production(baseline), "base", progress=progress)

    assert progress.acted
    assert baseline.value("SELECT count(*) FROM monitoring_metrics") == 1
    assert baseline.query("SELECT version_num FROM alembic_version") == [("0002",)]


def test_a_row_that_was_not_committed_at_the_look_is_not_lost(baseline: Database) -> None:
    with another_session(baseline, "writer", A_METRIC) as writer:
        progress = Progress("no lock", writer.commit)

        with pytest.raises(DataLossError, match="1 row of monitoring_metrics"):
            commands.downgrade(production(baseline), "base", progress=progress)

    assert progress.acted, "the run was to wait for the writer first"
    assert baseline.value("SELECT count(*) FROM monitoring_metrics") == 1


def test_a_row_that_comes_while_an_earlier_statement_waits_is_not_lost(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(sql("CREATE TABLE extra (id int)"), sql("SELECT pg_advisory_xact_lock(1)", "DROP TABLE extra"))
    config = checkout.config(replace(production(head), lock_timeout=60_000, statement_timeout=90_000))
    command.upgrade(config, "head")
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1 AND NOT granted"
    with ThreadPoolExecutor(1) as run, another_session(head, "gate", "SELECT pg_advisory_xact_lock(1)") as gate:
        downgrade = run.submit(command.downgrade, config, "-1")
        wait_until(lambda: downgrade.done() or head.value(waits), "the downgrade to be past its first look")
        head.query("INSERT INTO extra VALUES (1)")
        gate.rollback()
        with pytest.raises(CommandError, match="1 row of extra"):
            downgrade.result()

    assert head.value("SELECT count(*) FROM extra") == 1


# Reading SQL: whatever a statement would lose is found, however it is written


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


words = st.sampled_from(["default", "constraint", "identity", "expression", "column", "only", "table", "if", "exists"])
bare_names = st.builds(
    "{}_{}".format, words, st.from_regex(r"[A-Za-z0-9_$äß]{1,10}", fullmatch=True)
) | st.sampled_from(["identity", "expression"])
any_names = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15)
    | st.sampled_from(["two  blanks", "a.b", 'a"b', "50%", "semi;colon", ":bind", "DROP TABLE x", "default", "Größe"])
).map(quoted)
names = bare_names | any_names
DROPS = (
    "DROP TABLE {table}",
    "drop table if exists {table} cascade",
    "DROP TABLE {bystander}, {table}",
    "DROP  TABLE\n    {bystander} ,\n    {table}",
    "TRUNCATE {table}",
    "TRUNCATE TABLE ONLY {table}",
    "DELETE FROM {table}",
    "WITH gone AS (DELETE FROM ONLY {table} RETURNING *) SELECT count(*) FROM gone",
    "DO $$ BEGIN DROP TABLE {table}; END $$",
    "SELECT 1; DROP TABLE {table}",
)
COLUMN_DROPS = (
    "ALTER TABLE {table} DROP COLUMN {column}",
    "alter table if exists only {table} drop column if exists {column} cascade",
    "ALTER TABLE {table} DROP {column}",
    "ALTER TABLE {table}\n    ADD COLUMN one_more integer,\n    DROP COLUMN {column}",
)


@pytest.fixture
def connection(empty: Database) -> Iterator[Connection]:
    engine = create_engine(
        "postgresql+psycopg2://", creator=lambda: open_connection(empty.settings), poolclass=NullPool
    )
    with engine.connect() as connection:
        yield connection


def execute(connection: Connection, statement: str) -> None:
    """Run a statement as it stands, `%` and `:` included."""
    driver = connection.connection.cursor()
    driver.execute(statement)


@settings(max_examples=200, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from([*DROPS, *COLUMN_DROPS]),
    schema=st.none() | names,
    table=names,
    column=names,
    rows=st.integers(0, 3),
)
@example(form="ALTER TABLE {table} DROP {column}", schema=None, table="identity", column="identity", rows=1)
@example(form="ALTER TABLE {table} DROP {column}", schema=None, table='"a;b"', column='"c;  d"', rows=1)
def test_every_way_to_write_a_drop_is_found(
    connection: Connection, *, form: str, schema: str | None, table: str, column: str, rows: int
) -> None:
    full = table if schema is None else f"{schema}.{table}"
    with connection.begin() as transaction:
        if schema is not None:
            execute(connection, f"CREATE SCHEMA {schema}")
        execute(connection, f"CREATE TABLE {full} ({column} integer)")
        execute(connection, f"INSERT INTO {full} SELECT generate_series(1, {rows})")
        execute(connection, "CREATE TABLE bystander ()")
        statement = form.format(table=full, column=column, bystander="bystander")

        found = find_losses(connection, {"0001": statement})

        execute(connection, statement)  # it is SQL, and so it would have been a loss
        transaction.rollback()
    place = f"{full}.{column}" if form in COLUMN_DROPS else full
    expected = [f"{rows} {'row' if rows == 1 else 'rows'} of {place}"] if rows else []
    assert [loss.what for loss in found] == expected


def test_a_table_that_is_renamed_before_it_is_dropped_is_found(connection: Connection) -> None:
    execute(connection, "CREATE TABLE first_name AS SELECT 1 AS id")
    assert find_losses(connection, {"0001": "ALTER TABLE first_name RENAME TO second_name;\n\nDROP TABLE second_name;"})


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE kept DROP CONSTRAINT kept_check",
        "ALTER TABLE kept DROP CONSTRAINT IF EXISTS kept_check, ADD COLUMN more text",
        "ALTER TABLE kept ALTER COLUMN kind DROP DEFAULT",
        "ALTER TABLE kept ALTER COLUMN kind DROP NOT NULL",
        "ALTER TABLE kept ALTER COLUMN id DROP IDENTITY",
        "ALTER TABLE odd ALTER COLUMN a DROP NOT NULL, ALTER COLUMN b DROP DEFAULT, ALTER c DROP IDENTITY",
        "ALTER TABLE odd DROP CONSTRAINT odd_check, DROP CONSTRAINT IF EXISTS odd_other",
        "ALTER TABLE kept RENAME COLUMN kind TO sort",
        "DROP INDEX kept_index",
        "DROP VIEW IF EXISTS kept_view",
        "DROP TABLE IF EXISTS not_there",
        "ALTER TABLE IF EXISTS not_there DROP COLUMN kind",
        "ALTER TABLE kept DROP COLUMN IF EXISTS not_there",
    ],
)
def test_what_keeps_the_rows_is_no_loss(connection: Connection, statement: str) -> None:
    for preparation in (
        "CREATE TABLE kept (id int GENERATED ALWAYS AS IDENTITY, kind text NOT NULL DEFAULT 'a' CHECK (kind <> ''))",
        "ALTER TABLE kept RENAME CONSTRAINT kept_kind_check TO kept_check",
        "CREATE INDEX kept_index ON kept (kind)",
        "CREATE VIEW kept_view AS TABLE kept",
        "INSERT INTO kept (kind) VALUES ('own')",
        'CREATE TABLE odd ("not" int, "default" int, identity int, "constraint" int, a int NOT NULL, b int DEFAULT 1)',
        "ALTER TABLE odd ADD c int GENERATED ALWAYS AS IDENTITY, ADD CONSTRAINT odd_check CHECK (true)",
        "INSERT INTO odd VALUES (1, 1, 1, 1, 1)",
    ):
        execute(connection, preparation)

    assert find_losses(connection, {"0001": statement}) == []

    execute(connection, statement)
    assert connection.exec_driver_sql("SELECT count(*) FROM kept").scalar_one() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM kept WHERE id < 0",
        "WITH gone AS (DELETE FROM ONLY kept AS k USING kept_view AS v WHERE k.id = v.id + 1 RETURNING *) TABLE gone",
        "COMMENT ON TABLE kept IS 'never DROP TABLE kept'",
        "-- not TRUNCATE kept\nSELECT 1 /* DELETE FROM kept */",
        "CREATE FUNCTION purge() RETURNS void LANGUAGE sql AS $$ DELETE FROM kept $$",
        "CREATE RULE purge AS ON DELETE TO kept_view DO INSTEAD DELETE FROM kept",
        "DO $$ BEGIN IF false THEN DROP TABLE kept; END IF; END $$",
    ],
)
def test_uncertain_losses_are_left_to_the_row_guard(connection: Connection, statement: str) -> None:
    execute(connection, "CREATE TABLE kept AS SELECT 1 AS id")
    execute(connection, "CREATE VIEW kept_view AS TABLE kept")

    assert [loss.what for loss in find_losses(connection, {"0001": statement}) if loss.certain] == []

    execute(connection, statement)
    assert connection.exec_driver_sql("SELECT count(*) FROM kept").scalar_one() == 1


def test_a_long_statement_is_read_at_once(connection: Connection) -> None:
    """No assertion: a pattern that tries all ways to take the words apart would not come back."""
    execute(connection, "CREATE TABLE kept AS SELECT 1 AS id")
    find_losses(connection, {"0001": f"DELETE FROM kept USING {'many words ' * 20_000}"})


# The database of another tool


def airflow(database: Database) -> None:
    database.query("CREATE TABLE dag (dag_id varchar(250) PRIMARY KEY)")
    foreign_version(database, "5f2621c13b39")


def mlflow(database: Database) -> None:
    database.query("CREATE TABLE registered_models (name varchar(256) PRIMARY KEY)")
    database.query("CREATE TABLE model_versions (name varchar(256), version int, run_id varchar(32))")
    database.query("INSERT INTO model_versions VALUES ('churn', 1, 'run')")
    foreign_version(database, "bda7b8c39065")


def foreign_version(database: Database, revision: str) -> None:
    database.query("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
    database.query("INSERT INTO alembic_version VALUES (%s)", [revision])


def upgrade(config: Config) -> None:
    command.upgrade(config, "head")


def downgrade(config: Config) -> None:
    command.downgrade(config, "base")


def downgrade_by_one(config: Config) -> None:
    command.downgrade(config, "-1")


def stamp(config: Config) -> None:
    command.stamp(config, "head")


EVERY_COMMAND = (upgrade, downgrade, downgrade_by_one, stamp, command.current, command.check)


@pytest.mark.parametrize("owner", [airflow, mlflow])
def test_another_tools_database_is_refused_before_any_change(empty: Database, owner: Any) -> None:
    owner(empty)
    revision = empty.value("SELECT version_num FROM alembic_version")
    before = everything(empty)

    for run in EVERY_COMMAND:
        with pytest.raises(CommandError, match=revision) as refused:
            run(alembic_config(empty.settings))
        assert isinstance(refused.value.__cause__, UnknownRevisionError), run
        assert "Airflow, MLflow" in str(refused.value)

    assert everything(empty) == before


@pytest.mark.parametrize("arguments", [("upgrade", "head"), ("current",)])
def test_alembic_names_the_tools_that_may_own_the_database(empty: Database, arguments: tuple[str, ...]) -> None:
    mlflow(empty)
    before = everything(empty)
    assert_failed(empty.run("alembic", *arguments), "bda7b8c39065", "MLflow", "nothing was changed", "MLOPS_DB_NAME")
    assert everything(empty) == before


def test_mlflows_tables_without_a_version_are_not_taken_for_ours(empty: Database) -> None:
    mlflow(empty)
    empty.query("DELETE FROM alembic_version")
    before = everything(empty)

    with pytest.raises(UnmanagedDatabaseError, match="model_versions"):
        commands.upgrade(empty.settings)
    with pytest.raises(UnmanagedDatabaseError, match="model_versions"):
        commands.downgrade(empty.settings, "base")

    assert everything(empty) == before


def test_a_revision_of_a_newer_checkout_beside_ours_is_refused(head: Database) -> None:
    head.query("INSERT INTO alembic_version VALUES ('9876')")
    before = everything(head)

    with pytest.raises(UnknownRevisionError, match="9876"):
        commands.downgrade(head.settings, "base")

    assert everything(head) == before
