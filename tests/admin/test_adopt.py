"""Databases that schema.sql made, taken under Alembic; and those that are refused, and stay as they are."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from alembic import command
from psycopg.errors import LockNotAvailable

from mlops_db.admin import adopt as module
from mlops_db.admin.adopt import Judgement, adopt
from mlops_db.drift.catalogue import Catalogue
from mlops_db.drift.compare import read_drift
from mlops_db.drift.repair import BY_HAND, LOSES_ROWS
from mlops_db.drift.snapshot import expected_catalogue
from mlops_db.errors import MlopsDbError, NotPermittedError, RefusedError
from mlops_db.migration.commands import alembic_config
from mlops_db.project import BASELINE, BASELINE_TABLES, BASELINE_VIEWS
from mlops_db.server.advisory import RUN_LOCK
from mlops_db.settings import Settings
from support.database import Database, revision_of
from support.handmade import (
    ODD_ROWS,
    OLD_VIEWS,
    SPECIFICATION,
    make_by_hand,
    rows,
    state,
    view_oids,
    views_of_the_baseline,
)
from support.sessions import another_session, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]


def adopted(database: Database) -> Judgement:
    """Adopt it for good, with every row where it was."""
    before = rows(database)
    judgement = adopt(database.settings, dry_run=False)
    assert judgement.obstacles == []
    assert revision_of(database) == BASELINE
    assert rows(database) == before
    return judgement


def insert_into_every_table(database: Database) -> None:
    """As the jobs do, who leave the id to the database."""
    database.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('new', 'new')")
    database.query("INSERT INTO monitoring_metrics (metric_type) VALUES ('drift')")
    database.query("INSERT INTO retraining_decisions (action) VALUES ('reject')")


# Adopted


@pytest.mark.parametrize("views", ["", OLD_VIEWS], ids=["without views", "with old views"])
def test_odd_rows_stay_as_they_are(empty: Database, views: str) -> None:
    make_by_hand(empty, "SET timezone = 'Europe/Berlin';", ODD_ROWS, views)
    empty.query(f"ALTER DATABASE {empty.settings.database} SET timezone = 'Europe/Berlin'")
    texts = {table: empty.query(f"SELECT t::text FROM {table} AS t ORDER BY id") for table in BASELINE_TABLES}

    adopted(empty)
    assert read_drift(empty.settings).differences == []

    assert {table: empty.query(f"SELECT t::text FROM {table} AS t ORDER BY id") for table in BASELINE_TABLES} == texts
    for view in BASELINE_VIEWS:
        assert empty.value(f"SELECT count(*) FROM {view}") > 0
    empty.query("SELECT setval('model_versions_id_seq', 100)")  # rows of the test hold ids that it has not given out
    insert_into_every_table(empty)


def test_afterwards_it_is_what_the_revisions_make(empty: Database, head: Database) -> None:
    make_by_hand(empty, OLD_VIEWS)

    adopted(empty)
    command.upgrade(alembic_config(empty.settings), "head")

    assert empty.dump() == head.dump()


def test_a_million_metrics_are_carried_over(empty: Database) -> None:
    make_by_hand(
        empty,
        "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value)"
        " SELECT 'drift', 'feature ' || n % 50, n / 7.0 FROM generate_series(1, 1000000) AS n;",
    )

    adopted(empty)
    command.upgrade(alembic_config(empty.settings), "head")

    assert empty.value("SELECT count(*) FROM monitoring_metrics") == 1_000_000


def test_own_views_are_shown_and_replaced(empty: Database) -> None:
    make_by_hand(empty, ODD_ROWS, OLD_VIEWS)
    before = view_oids(empty)

    lines = adopted(empty).views

    for view in BASELINE_VIEWS:
        assert f"--- {view} as it is" in lines
        assert f"+++ {view} as it will be" in lines
        assert view_oids(empty)[view] not in (None, before[view])
    assert any(line.startswith("-") and "latest" in line for line in lines)
    assert any(line.startswith("+") and "previous_value" in line for line in lines)


def test_views_that_are_missing_are_made(empty: Database) -> None:
    make_by_hand(empty)

    assert adopted(empty).views == [f"view {view} is missing and will be created" for view in BASELINE_VIEWS]
    assert None not in view_oids(empty).values()


def test_the_same_views_are_kept(empty: Database) -> None:
    make_by_hand(empty, views_of_the_baseline())
    before = view_oids(empty)

    assert adopted(empty).views == []
    assert view_oids(empty) == before


def test_old_views_that_stand_on_one_another_are_replaced(empty: Database) -> None:
    make_by_hand(
        empty,
        """
        CREATE VIEW v_decision_history AS SELECT * FROM retraining_decisions;
        CREATE VIEW v_model_timeline AS SELECT m.*, d.action FROM model_versions AS m
            LEFT JOIN v_decision_history AS d ON d.candidate_mlflow_run_id = m.mlflow_run_id;
        """,
    )

    adopted(empty)

    assert read_drift(empty.settings).differences == []


@pytest.mark.parametrize(
    ("view", "statements"),
    [
        ("v_recent_monitoring", "CREATE TABLE x (id int); CREATE VIEW v_recent_monitoring AS SELECT * FROM x"),
        ("v_decision_history", 'CREATE VIEW v_decision_history AS SELECT 1 AS "weird ""name"""'),
    ],
)
def test_a_view_of_anything_under_one_of_the_names_is_replaced(empty: Database, view: str, statements: str) -> None:
    make_by_hand(empty, statements)
    before = view_oids(empty)[view]

    adopted(empty)

    assert view_oids(empty)[view] not in (None, before)


def test_comments_and_grants_of_the_tables_are_kept(empty: Database) -> None:
    make_by_hand(
        empty,
        """
        COMMENT ON TABLE model_versions IS 'ours';
        COMMENT ON COLUMN model_versions.f1_score IS 'on the test set';
        COMMENT ON CONSTRAINT model_versions_pkey ON model_versions IS 'the key';
        COMMENT ON SEQUENCE monitoring_metrics_id_seq IS 'ids';
        GRANT SELECT ON model_versions TO PUBLIC;
        GRANT UPDATE (status) ON model_versions TO PUBLIC;
        GRANT USAGE ON SEQUENCE monitoring_metrics_id_seq TO PUBLIC;
        """,
    )
    tables = [f"--table={table}" for table in (*BASELINE_TABLES, "monitoring_metrics_id_seq")]
    before = empty.dump(*tables)
    assert all(text in before for text in ("on the test set", "the key", "GRANT SELECT", "GRANT UPDATE", "GRANT USAGE"))

    adopted(empty)

    assert empty.dump(*tables) == before


@pytest.mark.parametrize(
    "obstacle", ["", "CREATE INDEX recent ON monitoring_metrics (timestamp);"], ids=["none", "an index"]
)
def test_grants_on_views_are_kept_when_they_are_replaced(empty: Database, obstacle: str) -> None:
    make_by_hand(
        empty,
        OLD_VIEWS,
        "GRANT SELECT, UPDATE ON v_model_timeline TO PUBLIC; GRANT SELECT ON v_recent_monitoring TO pg_monitor;",
        "GRANT SELECT ON v_recent_monitoring TO pg_signal_backend WITH GRANT OPTION;",
        obstacle,
    )
    grants = """
        SELECT table_name, grantee, privilege_type, is_grantable FROM information_schema.role_table_grants
         WHERE grantee <> grantor AND table_name LIKE 'v\\_%' ORDER BY 1, 2, 3
    """
    before = empty.query(grants)
    assert len(before) == 4

    if obstacle:
        empty.psql("\n".join(adopt(empty.settings, dry_run=True).remedy))
    adopted(empty)

    assert empty.query(grants) == before


def test_comments_and_column_grants_are_kept_where_a_replaced_view_has_the_same_names(empty: Database) -> None:
    comments = {
        "VIEW v_model_timeline": "'stages', 50 %s",
        "COLUMN v_model_timeline.status": 'the "stage"',
        "COLUMN v_decision_history.action": "promote or reject",
    }
    gone = "COMMENT ON COLUMN v_recent_monitoring.latest IS 'no such column later';"
    make_by_hand(
        empty,
        OLD_VIEWS,
        *("COMMENT ON {} IS '{}';".format(what, text.replace("'", "''")) for what, text in comments.items()),
        gone,
        "GRANT SELECT (status), UPDATE (model_version) ON v_model_timeline TO pg_monitor WITH GRANT OPTION;",
        "GRANT SELECT (latest) ON v_recent_monitoring TO PUBLIC;",
    )
    grants = """
        SELECT attrelid::regclass::text, attname, attacl::text FROM pg_attribute
         WHERE attacl IS NOT NULL AND attrelid = ANY (%s::regclass[]) ORDER BY 1, 2
    """
    before = empty.query(grants, [list(BASELINE_VIEWS)])

    adopted(empty)

    assert empty.query(grants, [list(BASELINE_VIEWS)]) == before[:-1]
    assert {column for _, column, _ in before} == {"latest", "status", "model_version"}
    views = [f"--table={view}" for view in BASELINE_VIEWS]
    kept = [line for line in empty.dump(*views).splitlines() if line.startswith("COMMENT ON")]
    assert len(kept) == len(comments)
    for what, text in comments.items():
        kind, _, name = what.partition(" ")
        escaped = text.replace("'", "''")
        assert f"COMMENT ON {kind} public.{name} IS '{escaped}';" in kept


OTHERS = """
    CREATE SCHEMA reports;
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TABLE predictions (id serial PRIMARY KEY, model int REFERENCES model_versions, mood mood);
    INSERT INTO predictions (model, mood) SELECT id, 'glad' FROM model_versions;
    CREATE INDEX ON predictions (model);
    CREATE TABLE reports.model_versions (id text);
    CREATE SEQUENCE tickets;
    CREATE VIEW production AS SELECT * FROM model_versions WHERE status = 'production';
    CREATE MATERIALIZED VIEW totals AS SELECT metric_type, count(*) FROM monitoring_metrics GROUP BY metric_type;
    CREATE FUNCTION double(x int) RETURNS int LANGUAGE sql AS 'SELECT x * 2';
"""


def test_what_else_is_there_is_left_alone_and_named(empty: Database) -> None:
    make_by_hand(empty, ODD_ROWS, OTHERS, OLD_VIEWS)
    own = ["--table=predictions", "--table=reports.*", "--table=tickets", "--table=production", "--table=totals"]
    before = empty.dump(*own), empty.query("TABLE predictions"), empty.query("TABLE totals ORDER BY 1")

    judgement = adopted(empty)

    assert (empty.dump(*own), empty.query("TABLE predictions"), empty.query("TABLE totals ORDER BY 1")) == before
    assert empty.value("SELECT double(21)") == 42
    assert set(judgement.left_alone) == {
        "type public.mood", "table public.predictions", "sequence public.predictions_id_seq", "sequence public.tickets",
        "view public.production", "materialized view public.totals", "function public.double(x integer)",
    }  # fmt: skip


def test_an_alembic_version_without_a_revision_is_no_obstacle(empty: Database) -> None:
    make_by_hand(empty, "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);")

    adopted(empty)


def test_a_search_path_that_leads_elsewhere_does_not_matter(empty: Database) -> None:
    empty.query(f"""
        CREATE SCHEMA "{empty.settings.user}"; CREATE SCHEMA elsewhere;
        ALTER DATABASE {empty.settings.database} SET search_path = elsewhere
    """)
    make_by_hand(empty)
    empty.query("ALTER TABLE elsewhere.model_versions SET SCHEMA public")
    empty.query("ALTER TABLE elsewhere.monitoring_metrics SET SCHEMA public")
    empty.query("ALTER TABLE elsewhere.retraining_decisions SET SCHEMA public")

    adopt(empty.settings, dry_run=False)

    assert empty.value("SELECT count(*) FROM public.alembic_version") == 1
    assert empty.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace") == 0


@pytest.mark.parametrize("views", ["", OLD_VIEWS], ids=["without views", "with old views"])
def test_a_dry_run_changes_nothing(empty: Database, views: str) -> None:
    make_by_hand(empty, ODD_ROWS, views)
    before = state(empty)

    judgement = adopt(empty.settings, dry_run=True)

    assert judgement.obstacles == []
    assert judgement.views
    assert state(empty) == before


# Near misses: each alone keeps a database from being adopted, and the statements that are printed mend it


NEAR_MISSES = {
    "a missing column": (
        "ALTER TABLE model_versions DROP promoted_at",
        "column model_versions.promoted_at: missing",
    ),
    "an extra column": (
        "ALTER TABLE model_versions ADD note text DEFAULT 'x'",
        "column model_versions.note: unexpected",
    ),
    "another type": (
        "ALTER TABLE model_versions ALTER f1_score TYPE real",
        "column model_versions.f1_score: type",
    ),
    "a type with a time zone": (
        "ALTER TABLE retraining_decisions ALTER created_at TYPE timestamptz",
        "column retraining_decisions.created_at: type",
    ),
    "another default": (
        "ALTER TABLE monitoring_metrics ALTER created_at SET DEFAULT now()",
        "column monitoring_metrics.created_at: default",
    ),
    "no default": (
        "ALTER TABLE monitoring_metrics ALTER timestamp DROP DEFAULT",
        "column monitoring_metrics.timestamp: default",
    ),
    "an extra index": (
        "CREATE INDEX recent ON monitoring_metrics (timestamp DESC)",
        "index recent on monitoring_metrics: unexpected",
    ),
    "an extra check": (
        "ALTER TABLE model_versions ADD CHECK (id <> 0)",
        "constraint model_versions_id_check on model_versions: unexpected",
    ),
    "a reference": (
        (
            "CREATE TABLE stages (stage varchar(50) PRIMARY KEY); "
            "ALTER TABLE monitoring_metrics ADD FOREIGN KEY (metric_type) REFERENCES stages NOT VALID"
        ),
        "constraint monitoring_metrics_metric_type_fkey on monitoring_metrics: unexpected",
    ),
    "no primary key": (
        "ALTER TABLE retraining_decisions DROP CONSTRAINT retraining_decisions_pkey",
        "constraint retraining_decisions_pkey on retraining_decisions: missing",
    ),
    "another constraint's name": (
        "ALTER TABLE model_versions RENAME CONSTRAINT model_versions_mlflow_run_id_key TO one_per_run",
        "constraint one_per_run on model_versions: unexpected",
    ),
    "a unique index instead of a constraint": (
        (
            "ALTER TABLE model_versions DROP CONSTRAINT model_versions_mlflow_run_id_key; "
            "CREATE UNIQUE INDEX ON model_versions (mlflow_run_id)"
        ),
        "constraint model_versions_mlflow_run_id_key on model_versions: missing",
    ),
    "a NOT NULL too many": (
        (
            "UPDATE monitoring_metrics SET metric_name = coalesce(metric_name, ''); "
            "ALTER TABLE monitoring_metrics ALTER metric_name SET NOT NULL"
        ),
        "column monitoring_metrics.metric_name: expected NULL allowed, found NOT NULL",
    ),
    "a NOT NULL too few": (
        "ALTER TABLE model_versions ALTER model_version DROP NOT NULL",
        "column model_versions.model_version: expected NOT NULL, found NULL allowed",
    ),
    "a sequence of another step": (
        "ALTER SEQUENCE model_versions_id_seq INCREMENT 10",
        "sequence model_versions_id_seq: definition",
    ),
    "a sequence that is nobody's": (
        "ALTER SEQUENCE model_versions_id_seq OWNED BY NONE",
        "sequence model_versions_id_seq: owned by",
    ),
    "a sequence of another name": (
        "ALTER SEQUENCE monitoring_metrics_id_seq RENAME TO ids",
        "sequence monitoring_metrics_id_seq: missing",
    ),
    "an id without a sequence": (
        "ALTER TABLE monitoring_metrics ALTER id DROP DEFAULT; DROP SEQUENCE monitoring_metrics_id_seq",
        "sequence monitoring_metrics_id_seq: missing",
    ),
    "a missing table": (
        "DROP TABLE retraining_decisions",
        "table retraining_decisions: missing",
    ),
    "a materialized view under a view's name": (
        "CREATE MATERIALIZED VIEW v_recent_monitoring AS TABLE monitoring_metrics",
        "materialized view v_recent_monitoring: unexpected",
    ),
    "a table under a view's name": (
        "CREATE TABLE v_recent_monitoring (id int)",
        "table v_recent_monitoring: unexpected",
    ),
    "row level security": (
        "ALTER TABLE model_versions ENABLE ROW LEVEL SECURITY",
        "table model_versions: row level security",
    ),
    "a trigger": (
        (
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; "
            "END'; "
            "CREATE TRIGGER t AFTER INSERT ON model_versions FOR EACH ROW EXECUTE FUNCTION nothing()"
        ),
        "trigger t on model_versions: unexpected",
    ),
}


@pytest.mark.parametrize(("statements", "obstacle"), NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_a_near_miss_is_refused_and_the_printed_statements_make_it_adoptable(
    empty: Database, statements: str, obstacle: str
) -> None:
    make_by_hand(
        empty, ODD_ROWS.replace("2147483647", "1000"), f"SELECT setval('model_versions_id_seq', 2000); {statements};"
    )
    before = state(empty)

    judgement = adopt(empty.settings, dry_run=False)

    output = [str(output).replace("public.", "").replace('"', "") for output in judgement.obstacles]
    assert any(line.startswith(obstacle) for line in output), output
    assert state(empty) == before
    assert revision_of(empty) is None

    empty.psql("\n".join(line.removeprefix(LOSES_ROWS) for line in judgement.remedy))
    adopted(empty)
    insert_into_every_table(empty)


def test_a_remedy_that_loses_data_is_only_a_comment(empty: Database) -> None:
    make_by_hand(empty, "ALTER TABLE model_versions ADD note text; CREATE TABLE v_recent_monitoring (id int);")
    before = state(empty)

    remedy = adopt(empty.settings, dry_run=False).remedy
    empty.psql("\n".join(remedy))

    assert set(remedy) == {
        f"{LOSES_ROWS}DROP TABLE public.v_recent_monitoring;",
        f"{LOSES_ROWS}ALTER TABLE public.model_versions DROP COLUMN note;",
    }
    assert state(empty) == before


def test_a_remedy_converts_times_with_a_time_zone_to_utc_for_every_role(empty: Database) -> None:
    make_by_hand(empty, "ALTER TABLE model_versions ALTER created_at TYPE timestamptz;")
    empty.query(
        "INSERT INTO model_versions (mlflow_run_id, model_version, created_at) VALUES ('1', '1', '2025-07-01 12:00+00')"
    )
    empty.query(f"ALTER DATABASE {empty.settings.database} SET timezone = 'America/New_York'")

    empty.psql("\n".join(adopt(empty.settings, dry_run=True).remedy))

    assert empty.value("SELECT created_at::text FROM model_versions") == "2025-07-01 12:00:00"


ORDERED = SPECIFICATION.replace("    status VARCHAR(50),  -- 'staging', 'production', 'archived'\n", "").replace(
    "    promoted_at TIMESTAMP\n", "    promoted_at TIMESTAMP,\n    status VARCHAR(50)\n"
)
BY_HAND_ONLY = {
    "another order of columns": (ORDERED, "column public.model_versions.status: position: expected 4, found 8"),
    "an identity instead of a serial": (
        SPECIFICATION.replace("SERIAL", "INTEGER GENERATED BY DEFAULT AS IDENTITY"),
        "column public.model_versions.id: identity: expected nothing, found BY DEFAULT",
    ),
    "partitions": (
        SPECIFICATION
        + "DROP TABLE monitoring_metrics; CREATE TABLE monitoring_metrics (id serial, timestamp timestamp)"
        " PARTITION BY RANGE (timestamp);",
        "table public.monitoring_metrics: partition key: expected nothing, found RANGE",
    ),
}


@pytest.mark.parametrize(("statements", "obstacle"), BY_HAND_ONLY.values(), ids=BY_HAND_ONLY)
def test_a_difference_that_no_statement_repairs_is_refused_and_named(
    empty: Database, statements: str, obstacle: str
) -> None:
    empty.psql(statements)
    before = state(empty)

    judgement = adopt(empty.settings, dry_run=False)

    assert any(str(output).startswith(obstacle) for output in judgement.obstacles), judgement.obstacles
    assert any(line.startswith(BY_HAND) for line in judgement.remedy), judgement.remedy
    assert state(empty) == before


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE model_versions ADD note text",
        "ALTER TABLE model_versions ALTER model_version TYPE varchar(60)",
        "CREATE MATERIALIZED VIEW v_recent_monitoring AS TABLE monitoring_metrics",
    ],
    ids=["an extra column", "another type", "a materialized view"],
)
def test_a_remedy_works_under_old_views_that_use_what_it_changes(empty: Database, statement: str) -> None:
    make_by_hand(
        empty,
        ODD_ROWS,
        f"{statement}; CREATE VIEW v_model_timeline AS SELECT * FROM model_versions;",
    )

    empty.psql("\n".join(line.removeprefix(LOSES_ROWS) for line in adopt(empty.settings, dry_run=True).remedy))

    adopted(empty)


UNFIT = {
    "numbers that text does not hold": (
        (
            "ALTER TABLE monitoring_metrics ALTER metric_value TYPE text;"
            "UPDATE monitoring_metrics SET metric_value = 'n/a'"
        ),
        'not all rows convert: invalid input syntax for type double precision: "n/a"',
    ),
    "ids that are UUIDs": (
        (
            "ALTER TABLE model_versions ALTER id DROP DEFAULT, ALTER id TYPE uuid USING gen_random_uuid();"
            "DROP SEQUENCE model_versions_id_seq"
        ),
        "PostgreSQL does not convert uuid to it",
    ),
    "ids beyond 32 bits": (
        (
            "ALTER TABLE retraining_decisions ALTER id TYPE bigint;"
            "UPDATE retraining_decisions SET id = 3000000000 WHERE id = 1"
        ),
        "not all rows convert: integer out of range",
    ),
    "JSON that is a list": (
        "ALTER TABLE model_versions ALTER f1_score TYPE jsonb USING '[]'",
        "not all rows convert: cannot cast jsonb array to type double precision",
    ),
    "a truth value for a moment": (
        "ALTER TABLE model_versions ALTER promoted_at TYPE boolean USING true",
        "PostgreSQL does not convert boolean to it",
    ),
    "text that is no JSON": (
        "ALTER TABLE monitoring_metrics ALTER metadata TYPE text; UPDATE monitoring_metrics SET metadata = '{'",
        "not all rows convert: invalid input syntax for type json",
    ),
    "text that is no moment": (
        (
            "ALTER TABLE model_versions ALTER created_at DROP DEFAULT, ALTER created_at TYPE text;"
            "UPDATE model_versions SET created_at = 'yesterday noon'"
        ),
        "not all rows convert: invalid input syntax for type timestamp",
    ),
    "text that is too long": (
        "ALTER TABLE model_versions ALTER status TYPE text; UPDATE model_versions SET status = repeat('x', 51)",
        "some rows are longer than 50 characters",
    ),
    "NULL where there must be none": (
        (
            "ALTER TABLE model_versions ALTER model_version DROP NOT NULL;"
            "UPDATE model_versions SET model_version = NULL WHERE id = 1"
        ),
        "some rows have NULL in model_version",
    ),
    "the same run twice": (
        (
            "ALTER TABLE model_versions DROP CONSTRAINT model_versions_mlflow_run_id_key;"
            "UPDATE model_versions SET mlflow_run_id = 'run'"
        ),
        "some rows have the same mlflow_run_id",
    ),
    "a key without a value": (
        (
            "ALTER TABLE retraining_decisions DROP CONSTRAINT retraining_decisions_pkey, ALTER id DROP NOT NULL;"
            "UPDATE retraining_decisions SET id = NULL WHERE id = 1"
        ),
        "some rows have NULL in id",
    ),
}


@pytest.mark.parametrize(("statements", "reason"), UNFIT.values(), ids=UNFIT)
def test_a_statement_that_would_fail_is_not_proposed(empty: Database, statements: str, reason: str) -> None:
    """What is printed runs from end to end, and what it cannot do is told as to be done by hand, with the reason."""
    make_by_hand(empty, ODD_ROWS, f"{statements};")

    judgement = adopt(empty.settings, dry_run=True)

    by_hand = [line for line in judgement.remedy if line.startswith(BY_HAND)]
    assert any(reason in line for line in by_hand), judgement.remedy
    assert "\n" not in "".join(by_hand)
    empty.psql("\n".join(judgement.remedy))
    again = adopt(empty.settings, dry_run=True)
    assert again.obstacles
    assert [line for line in again.remedy if not line.startswith(BY_HAND)] == []


@pytest.mark.parametrize(
    ("statements", "type_"),
    [
        ("ALTER TABLE monitoring_metrics ALTER metric_value TYPE text", "double precision"),
        ("ALTER TABLE model_versions ALTER model_version TYPE text", "character varying(50)"),
        ("ALTER TABLE model_versions ALTER created_at TYPE date", "timestamp without time zone"),
        ("ALTER TABLE monitoring_metrics ALTER metadata TYPE json", "jsonb"),
        ("ALTER TABLE retraining_decisions ALTER id TYPE bigint", "integer"),
    ],
)
def test_a_statement_that_converts_all_rows_is_proposed(empty: Database, statements: str, type_: str) -> None:
    make_by_hand(empty, ODD_ROWS.replace("2147483647", "1000"), f"{statements};")

    remedy = adopt(empty.settings, dry_run=True).remedy

    assert any(f" TYPE {type_} USING " in line for line in remedy), remedy
    empty.psql("\n".join(remedy))
    adopted(empty)


# Refused


MLFLOW = """
CREATE TABLE experiments (experiment_id serial PRIMARY KEY, name varchar(256) UNIQUE NOT NULL);
CREATE TABLE runs (run_uuid varchar(32) PRIMARY KEY, experiment_id int REFERENCES experiments);
CREATE TABLE registered_models (name varchar(256) PRIMARY KEY, creation_time bigint);
CREATE TABLE model_versions (
    name varchar(256) NOT NULL REFERENCES registered_models, version int NOT NULL, creation_time bigint,
    current_stage varchar(20), run_id varchar(32), PRIMARY KEY (name, version)
);
INSERT INTO registered_models VALUES ('fraud', 1); INSERT INTO model_versions VALUES ('fraud', 1, 1, 'Production', 'a');
"""
AIRFLOW = """
CREATE TABLE dag (dag_id varchar(250) PRIMARY KEY);
CREATE TABLE dag_run (id serial PRIMARY KEY, dag_id varchar(250) NOT NULL);
CREATE TABLE task_instance (task_id varchar(250), dag_id varchar(250), run_id varchar(250), state varchar(20));
"""
THEIR_REVISION = """
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('bf00311e1990');
"""
REFUSED = {
    "MLflow's": (MLFLOW + THEIR_REVISION, "is MLflow's own database", "MLOPS_DB_NAME"),
    "MLflow's without a revision": (MLFLOW, "is MLflow's own database", "MLOPS_DB_NAME"),
    "MLflow's with our tables in it": (
        SPECIFICATION
        + MLFLOW.replace("TABLE model_versions", "TABLE their_versions").replace("INTO model_", "INTO their_"),
        "is MLflow's own database",
        "MLOPS_DB_NAME",
    ),
    "Airflow's": (AIRFLOW + THEIR_REVISION, "is Airflow's own database", "MLOPS_DB_NAME"),
    "Airflow's without a revision": (AIRFLOW, "is Airflow's own database", "MLOPS_DB_NAME"),
    "another tool's": (SPECIFICATION + THEIR_REVISION, "is at revision 'bf00311e1990'", "another tool"),
    "empty": ("", f"has none of the tables {', '.join(BASELINE_TABLES)}", "`mlops-db init`"),
    "full of something else": (
        "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1);",
        "has none of the tables",
        "init",
    ),
}


@pytest.mark.parametrize(("statements", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_a_database_of_schema_sql_is_refused_in_a_line(
    empty: Database, statements: str, message: str, hint: str
) -> None:
    empty.psql(statements)
    before = state(empty)

    for dry_run in (True, False):
        with pytest.raises(MlopsDbError) as refused:
            adopt(empty.settings, dry_run=dry_run)
        assert message in str(refused.value)
        assert empty.settings.target in str(refused.value)
        assert hint in refused.value.hint
        assert "\n" not in f"{refused.value}{refused.value.hint}"
    assert state(empty) == before


@pytest.mark.parametrize("revision", ["0002", "head"])
def test_a_database_under_alembic_is_refused(empty: Database, revision: str) -> None:
    command.upgrade(alembic_config(empty.settings), revision)
    before = state(empty)

    with pytest.raises(RefusedError, match=f"under Alembic already, at revision {revision_of(empty)}") as refused:
        adopt(empty.settings, dry_run=False)

    assert "`alembic upgrade head`" in refused.value.hint
    assert state(empty) == before


def test_tables_of_mlflow_s_names_in_another_schema_do_not_matter(empty: Database) -> None:
    make_by_hand(
        empty,
        """
        CREATE SCHEMA mlflow; CREATE TABLE mlflow.runs (); CREATE TABLE mlflow.experiments ();
        CREATE TABLE mlflow.registered_models (); CREATE TABLE runs ();
        """,
    )

    adopted(empty)


def test_mlflow_s_model_versions_alone_is_compared_column_by_column(empty: Database) -> None:
    make_by_hand(
        empty, "DROP TABLE model_versions; CREATE TABLE model_versions (name varchar(256), version int NOT NULL);"
    )
    before = state(empty)

    output = [str(obstacle) for obstacle in adopt(empty.settings, dry_run=False).obstacles]

    assert "column public.model_versions.mlflow_run_id: missing" in output
    assert "column public.model_versions.version: unexpected" in output
    assert state(empty) == before


STRANGERS = {
    "a view": "CREATE VIEW dashboard AS SELECT * FROM v_model_timeline",
    "a materialized view": "CREATE MATERIALIZED VIEW dashboard AS SELECT * FROM v_model_timeline",
    "a view of another schema": "CREATE SCHEMA bi; CREATE VIEW bi.dashboard AS SELECT * FROM v_model_timeline",
    "a rule on it": "CREATE RULE dashboard AS ON INSERT TO v_model_timeline DO INSTEAD NOTHING",
}


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "for good"])
@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_what_of_others_depends_on_a_view_that_would_be_replaced_is_named(
    empty: Database, stranger: str, *, dry_run: bool
) -> None:
    make_by_hand(empty, ODD_ROWS, OLD_VIEWS, f"{stranger};")
    before = state(empty)

    with pytest.raises(MlopsDbError, match=r"(view|rule) .*dashboard.* depends on view v_model_timeline") as refused:
        adopt(empty.settings, dry_run=dry_run)

    assert "server's log" not in refused.value.hint, "it has to say what to do"
    assert state(empty) == before


def test_a_stranger_s_view_on_top_of_one_that_stays_is_no_obstacle(empty: Database) -> None:
    make_by_hand(empty, views_of_the_baseline(), "CREATE VIEW dashboard AS SELECT * FROM v_model_timeline;")

    assert adopted(empty).left_alone == ["view public.dashboard"]
    assert empty.query("SELECT * FROM dashboard") == []


def test_a_rule_on_a_view_that_the_remedy_drops_is_named_in_it(empty: Database) -> None:
    make_by_hand(
        empty, views_of_the_baseline(), "ALTER TABLE monitoring_metrics ALTER metric_name SET NOT NULL, ADD note text;",
        "CREATE RULE r AS ON UPDATE TO v_model_timeline DO INSTEAD SELECT OLD.mlflow_run_id, OLD.model_version;",
    )  # fmt: skip

    remedy = adopt(empty.settings, dry_run=True).remedy

    (needed,) = (line for line in remedy if line.startswith("-- by hand: "))
    assert "rule r on public.v_model_timeline needs view public.v_model_timeline: drop it" in needed
    assert "DROP VIEW" in remedy[1]


def test_what_of_others_keeps_the_remedy_from_running_is_named_in_it(empty: Database) -> None:
    make_by_hand(
        empty, "ALTER TABLE model_versions ALTER id TYPE bigint;", views_of_the_baseline(),
        "CREATE VIEW dashboard AS SELECT id FROM model_versions; CREATE TABLE kept (version model_versions);"
        "CREATE VIEW timeline AS SELECT 1 FROM v_model_timeline;",
    )  # fmt: skip

    remedy = adopt(empty.settings, dry_run=True).remedy

    needed = [line.partition(": drop it")[0] for line in remedy if line.startswith("-- by hand: ")]
    assert needed == [
        "-- by hand: view public.timeline needs view public.v_model_timeline",
        "-- by hand: table column public.kept.version needs column public.model_versions.id",
        "-- by hand: view public.dashboard needs column public.model_versions.id",
    ]
    empty.psql("DROP VIEW dashboard, timeline; DROP TABLE kept")
    empty.psql("\n".join(remedy))
    assert adopted(empty).obstacles == []


@contextmanager
def role(database: Database, attributes: str, *grants: str) -> Iterator[Settings]:
    """A role with a few rights, and settings with which it connects."""
    database.query(f"CREATE ROLE adopter LOGIN PASSWORD 'adopter' {attributes}")
    try:
        for grant in grants:
            database.query(f"GRANT {grant} TO adopter")
        yield replace(database.settings, user="adopter", password="adopter")  # noqa: S106  (a role of this test's)
    finally:
        database.query("DROP OWNED BY adopter")
        database.query("DROP ROLE adopter")


def test_the_owner_need_not_be_able_to_create_databases(empty: Database) -> None:
    """As on most managed servers."""
    with role(empty, "NOCREATEDB") as settings:
        empty.query(f"ALTER DATABASE {settings.database} OWNER TO adopter; GRANT ALL ON SCHEMA public TO adopter")
        make_by_hand(replace(empty, settings=settings), OLD_VIEWS)

        assert adopt(settings, dry_run=True).obstacles == []
        adopt(settings, dry_run=False)

        assert revision_of(empty) == BASELINE
        assert read_drift(settings).differences == []
        empty.query(f"ALTER DATABASE {settings.database} OWNER TO CURRENT_USER")


def test_a_role_that_does_not_own_the_tables_is_refused(empty: Database) -> None:
    make_by_hand(empty)
    before = state(empty)

    with (
        role(empty, "CREATEDB", "SELECT ON ALL TABLES IN SCHEMA public") as settings,
        pytest.raises(NotPermittedError, match="permission denied"),
    ):
        adopt(settings, dry_run=False)

    assert state(empty) == before


# Among others


WRITES = (
    "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('busy', '1')",
    "UPDATE monitoring_metrics SET metric_value = 1",
    "DELETE FROM retraining_decisions WHERE action = 'promote'",
)


def test_sessions_that_are_writing_do_not_hold_it_up(empty: Database) -> None:
    make_by_hand(empty, ODD_ROWS)
    with another_session(empty, "a job", *WRITES) as job:
        adopt(empty.settings, dry_run=False)
        job.commit()

    assert revision_of(empty) == BASELINE
    assert empty.value("SELECT count(*) FROM model_versions WHERE mlflow_run_id = 'busy'") == 1
    assert empty.value("SELECT count(*) FROM retraining_decisions WHERE action = 'promote'") == 0


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in a thread that ends with the block; raises what it raised."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def waiting(database: Database) -> int:
    """How many sessions of ours wait for a lock in this database."""
    count: int = database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'mlops-db %' AND wait_event_type = 'Lock'"
    )
    return count


def test_while_it_waits_for_a_reader_of_an_old_view_everybody_reads_and_writes_and_nobody_alters_the_tables(
    empty: Database,
) -> None:
    make_by_hand(empty, ODD_ROWS, OLD_VIEWS)
    patient = replace(empty.settings, lock_timeout=50_000, statement_timeout=60_000)
    with (
        another_session(empty, "a dashboard", "SELECT * FROM v_recent_monitoring") as dashboard,
        in_thread(lambda: adopt(patient, dry_run=False)),
    ):
        try:
            wait_until(lambda: waiting(empty), "the reader of the view to be waited for")
            empty.query("SET lock_timeout = '5s'")
            for statement in (*WRITES, *(f"SELECT * FROM {table} LIMIT 0" for table in BASELINE_TABLES)):
                empty.query(statement)
            empty.query("SET lock_timeout = '50ms'")
            for table in BASELINE_TABLES:  # what was compared cannot change before it is recorded
                with pytest.raises(LockNotAvailable):
                    empty.query(f"CREATE INDEX ON {table} (id)")
        finally:
            dashboard.rollback()

    assert revision_of(empty) == BASELINE
    assert empty.value("SELECT count(*) FROM model_versions WHERE mlflow_run_id = 'busy'") == 1


@pytest.mark.parametrize(
    "held",
    ["SELECT * FROM v_model_timeline", "LOCK TABLE monitoring_metrics IN SHARE UPDATE EXCLUSIVE MODE"],
    ids=["a reader of an old view", "VACUUM's lock"],
)
def test_it_gives_up_soon_says_why_and_changes_nothing(empty: Database, held: str) -> None:
    make_by_hand(empty, ODD_ROWS, OLD_VIEWS)
    before = state(empty)

    with (
        another_session(empty, "somebody else", held),
        pytest.raises(MlopsDbError, match="lock") as refused,
    ):
        adopt(replace(empty.settings, lock_timeout=100, statement_timeout=5_000), dry_run=False)

    assert "server's log" not in refused.value.hint, "it has to say what to do"
    assert state(empty) == before


def test_what_another_one_has_adopted_in_the_meantime_is_refused(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not adopted yet when this one looked first, and is once this one has the lock."""
    make_by_hand(empty)

    def meanwhile(settings: Settings, revision: str) -> Catalogue:
        monkeypatch.setattr(module, "expected_catalogue", expected_catalogue)
        adopted(empty)
        return expected_catalogue(settings, revision)

    monkeypatch.setattr(module, "expected_catalogue", meanwhile)
    with pytest.raises(RefusedError, match=f"under Alembic already, at revision {BASELINE}"):
        adopt(empty.settings, dry_run=False)

    stamps = "SELECT count(*) FROM mlops_internal.migration_history WHERE direction = 'stamp'"
    assert (revision_of(empty), empty.value(stamps)) == (BASELINE, 1)


def test_a_migration_run_that_goes_on_is_not_disturbed(empty: Database) -> None:
    """The run lock keeps adopting and migrating apart."""
    make_by_hand(empty)
    before = state(empty)
    run = f"SELECT pg_advisory_xact_lock({RUN_LOCK})"
    with (
        another_session(empty, "alembic", run),
        pytest.raises(MlopsDbError, match="another run or command still holds the lock"),
    ):
        adopt(replace(empty.settings, lock_wait=100), dry_run=False)

    assert state(empty) == before
