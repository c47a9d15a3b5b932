"""What `mlops-db check` makes of what belongs to a database at head, though no revision made it."""

from collections.abc import Iterator

import pytest

from mlops_db.drift.compare import read_drift
from mlops_db.migration.commands import upgrade
from support import roles
from support.database import Database
from support.partitions import months

pytestmark = pytest.mark.slow

MORE_MONTHS = """
    INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name)
    SELECT now() - n * interval '40 days', 'drift', 'psi' FROM generate_series(0, 5) AS n;
    SELECT mlops_internal.create_next_partition(5);
"""


@pytest.fixture
def reader(head: Database) -> Iterator[str]:
    head.query("CREATE ROLE mlops_test_reader")
    try:
        yield "mlops_test_reader"
    finally:
        head.query("DROP OWNED BY mlops_test_reader")
        head.query("DROP ROLE mlops_test_reader")


def checked(database: Database) -> list[str]:
    done = database.run("mlops-db", "check")
    assert "Traceback" not in done.stderr
    *lines, summary = done.stdout.splitlines()
    differences = [line for line in lines if not line.startswith("theirs: ")]
    assert done.returncode == (1 if differences else 0), summary
    return lines


def test_months_come_and_go_without_being_a_difference(head: Database) -> None:
    head.query(MORE_MONTHS)
    head.query("CALL mlops_internal.maintain('60 days')")

    assert checked(head) == []


def test_a_partition_without_which_an_insert_fails_is_missed(head: Database) -> None:
    head.query("ALTER TABLE monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_later")

    differences = checked(head)

    expected = "table public.monitoring_metrics: open ends: expected MINVALUE, MAXVALUE, found MINVALUE"
    assert expected in differences
    assert "table mlops_internal.monitoring_metrics_later: unexpected" in differences
    script = head.run("mlops-db", "check", "--sql").stdout
    assert "-- by hand: table public.monitoring_metrics: open ends should be MINVALUE, MAXVALUE\n" in script


def test_a_gap_between_months_is_missed(head: Database) -> None:
    _, second, third, _ = months(head, 0, 3)
    head.query("SET timezone = 'UTC'")
    ends = "SELECT lower::text, upper::text FROM mlops_internal.metric_partitions() WHERE partition = %s"
    (beginning, end), (_, end_of_third) = (head.query(ends, [name])[0] for name in (second, third))
    head.query(f"DROP TABLE mlops_internal.{second}, mlops_internal.{third}")

    assert checked(head) == [f"table public.monitoring_metrics: gaps: expected nothing, found before '{end_of_third}'"]
    script = head.run("mlops-db", "check", "--sql").stdout
    assert "-- by hand: table public.monitoring_metrics: gaps should be none" in script

    head.query(f"""
        CREATE TABLE mlops_internal.{second} PARTITION OF monitoring_metrics
            FOR VALUES FROM ('{beginning}') TO ('{end}');
        CREATE TABLE mlops_internal.{third} PARTITION OF monitoring_metrics
            FOR VALUES FROM ('{end}') TO ('{end_of_third}')
    """)
    assert checked(head) == []


def test_grants_to_others_are_listed_and_stay_when_ours_are_repaired(head: Database, reader: str) -> None:
    head.query(f"GRANT SELECT ON v_model_timeline, v_decision_history TO {reader}")
    head.query(f"GRANT SELECT (id, action) ON retraining_decisions TO {reader} WITH GRANT OPTION")
    head.query(f"GRANT UPDATE ON v_model_timeline TO {reader}")
    theirs = [
        (
            f"theirs: grants to {reader} on view public.v_decision_history, view public.v_model_timeline,"
            " column public.retraining_decisions.id, column public.retraining_decisions.action"
        )
    ]
    assert checked(head) == theirs

    head.query("ALTER VIEW v_model_timeline SET (security_barrier = true)")

    script = head.run("mlops-db", "check", "--sql").stdout
    head.psql(script)

    assert checked(head) == theirs
    assert head.value("SELECT has_table_privilege('mlops_test_reader', 'v_model_timeline', 'SELECT, UPDATE')")


def test_what_everybody_may_do_is_a_difference(head: Database, reader: str) -> None:
    head.query(f"GRANT SELECT ON model_versions TO PUBLIC, {reader}")

    assert checked(head) == [
        f"table public.model_versions: grants: expected SELECT TO {reader}, found SELECT TO PUBLIC, SELECT TO {reader}",
        f"theirs: grants to {reader} on table public.model_versions",
    ]
    script = head.run("mlops-db", "check", "--sql").stdout
    assert script == "REVOKE SELECT ON TABLE public.model_versions FROM PUBLIC;\n"


def test_reporting_is_ours_and_what_others_have_there_is_theirs(head: Database, reader: str) -> None:
    head.query("CREATE VIEW reporting.theirs AS SELECT * FROM reporting.metric_daily(now() - interval '1 day')")
    head.query("GRANT EXECUTE ON FUNCTION reporting.metric_daily TO PUBLIC")
    head.query(f"GRANT USAGE ON SCHEMA reporting TO {reader}")
    name = "reporting.metric_daily(since timestamp with time zone, until timestamp with time zone)"
    theirs = ["theirs: view reporting.theirs", f"theirs: grants to {reader} on schema reporting"]
    assert checked(head) == [f"function {name}: grants: expected nothing, found EXECUTE TO PUBLIC", *theirs]

    head.psql(head.run("mlops-db", "check", "--sql").stdout)
    assert checked(head) == theirs


def test_a_schema_reporting_that_was_dropped_comes_back(head: Database) -> None:
    head.query("DROP SCHEMA reporting CASCADE")
    assert {"schema reporting: missing", "view reporting.metric_history: missing"} <= set(checked(head))

    head.psql(head.run("mlops-db", "check", "--sql").stdout)
    assert checked(head) == []


def test_the_size_and_rows_of_a_partitioned_table_are_those_of_its_partitions(head: Database) -> None:
    head.query(MORE_MONTHS)

    done = head.run("mlops-db", "status")

    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("monitoring_metrics"))
    assert row[:3] == ["monitoring_metrics", "table", "6"]
    assert int(row[3]) > 0


THEIRS = """
CREATE SCHEMA bi;
CREATE TABLE bi.spatial (id integer);
CREATE TABLE spatial_ref_sys (id serial PRIMARY KEY, version integer REFERENCES model_versions, kind text);
CREATE INDEX ON spatial_ref_sys (kind);
CREATE TYPE kind AS ENUM ('a');
CREATE SEQUENCE numbers;
CREATE VIEW report AS SELECT model_name, health FROM v_recent_monitoring;
CREATE VIEW bi.report AS SELECT * FROM report;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM model_versions;
CREATE FUNCTION newest() RETURNS SETOF v_model_timeline LANGUAGE sql AS 'SELECT * FROM public.v_model_timeline';
CREATE FUNCTION log() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER log ON sql_drop EXECUTE FUNCTION log();
CREATE STATISTICS by_action (dependencies) ON action, model_name FROM retraining_decisions;
CREATE PUBLICATION cdc FOR ALL TABLES;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO mlops_test_reader;
GRANT SELECT, INSERT, UPDATE ON model_versions, retraining_decisions, monitoring_metrics TO mlops_test_reader;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO mlops_test_reader;
GRANT USAGE ON SCHEMA mlops_internal TO mlops_test_reader;
GRANT EXECUTE ON FUNCTION mlops_internal.register_series(text, text, text) TO mlops_test_reader;
GRANT SELECT (id, status) ON model_versions TO mlops_test_reader;
GRANT SELECT ON v_decision_history TO mlops_test_reader;
"""


def test_objects_of_others_are_listed_and_left_alone(head: Database, reader: str) -> None:
    head.psql(THEIRS)
    offered = head.query(
        "SELECT name FROM pg_available_extensions WHERE name IN ('hstore', 'pg_stat_statements') ORDER BY 1"
    )
    extensions = [name for (name,) in offered]
    for name in extensions:
        head.query(f"CREATE EXTENSION {name}")

    done = head.run("mlops-db", "check", "--sql")

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    # Before PostgreSQL 15 a note follows.
    *theirs, summary = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert summary.endswith(": no difference")
    assert sorted(line for line in theirs if reader not in line) == [
        *(f"theirs: extension {name}" for name in extensions),
        "theirs: function public.log()",
        "theirs: function public.newest()",
        "theirs: materialized view public.totals",
        "theirs: sequence public.numbers",
        "theirs: table public.spatial_ref_sys",
        "theirs: type public.kind",
        "theirs: view public.report",
    ]
    (grants,) = [line for line in theirs if reader in line]
    # It may write to all tables, so it is a writer, who needs the rest, and may have register_series.
    assert grants.startswith(f"theirs: grants to {reader} on table public.model_versions, ")
    assert "schema" not in grants
    assert "function" not in grants


def test_beside_what_is_somebody_elses_ours_is_repaired(head: Database, reader: str) -> None:
    head.psql(THEIRS)
    before = head.dump()
    head.psql("""
        DROP EVENT TRIGGER log;
        DROP VIEW v_decision_history;
        CREATE INDEX extra ON retraining_decisions (action);
        GRANT DELETE ON model_versions TO PUBLIC;
        ALTER TABLE model_versions ALTER status DROP DEFAULT
    """)

    head.psql(head.run("mlops-db", "check", "--sql").stdout)

    head.psql("CREATE EVENT TRIGGER log ON sql_drop EXECUTE FUNCTION log()")
    assert head.run("mlops-db", "check").returncode == 0
    assert sorted(head.dump().splitlines()) == sorted(before.splitlines())
    assert head.value("SELECT has_table_privilege(%s, 'v_decision_history', 'SELECT')", [reader])


def test_in_a_database_of_a_superuser_s_ours_belongs_to_whom_the_revision_does(empty: Database) -> None:
    with roles.owner(empty) as database:
        upgrade(database.settings)
        empty.query(f"ALTER DATABASE {empty.settings.database} OWNER TO CURRENT_USER")
        empty.query("ALTER TABLE model_versions OWNER TO CURRENT_USER")
        superuser = empty.value("SELECT quote_ident(current_user)")

        output = [f"table public.model_versions: owner: expected {database.settings.user}, found {superuser}"]

        assert [str(difference) for difference in read_drift(database.settings).differences] == output


def test_what_a_guest_made_under_a_name_of_ours_is_read_and_not_run(head: Database, reader: str) -> None:
    head.query("DROP VIEW v_recent_monitoring")
    head.query(f"GRANT CREATE ON SCHEMA public TO {reader}")
    head.query(f"SET ROLE {reader}")
    head.query(f"""
        CREATE FUNCTION trap(integer) RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN IF current_user <> '{reader}' THEN RAISE 'taken over'; END IF; RETURN true; END $$;
        CREATE DOMAIN trapped AS integer CHECK (public.trap(VALUE));
        CREATE VIEW v_recent_monitoring AS SELECT '{{1}}'::trapped[] AS id
    """)
    head.query("RESET ROLE")

    lines = checked(head)

    assert "view public.v_recent_monitoring: definition differs" in lines
    assert any("owner" in line and reader in line for line in lines)
    head.query(f"DROP OWNED BY {reader}")


def test_an_event_trigger_that_refuses_does_not_cost_the_answer(head: Database) -> None:
    head.query("ALTER TABLE model_versions ALTER model_version SET DEFAULT 'x'")
    head.query("ALTER TABLE model_versions ALTER status SET DEFAULT 'archived'")
    head.query("CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL'; END $$")
    refusing = "ON ddl_command_start WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION refuse()"
    head.query(f"CREATE EVENT TRIGGER refusing {refusing}")

    lines = checked(head)

    assert any(line.startswith("column public.model_versions.status: default: expected 'staging'") for line in lines)
