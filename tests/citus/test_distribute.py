"""`mlops-db distribute` and `undistribute`: on one node, and on a coordinator with two workers."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from support.citus import CLOSE_TIME_PARTITIONS, CitusCluster
from support.cluster import connect_superuser
from support.database import SCRIPTS, Database
from support.metric_jobs import assert_rows_are_those_of_confirmed_calls, jobs
from support.process import assert_failed
from support.sessions import another_session, wait_until

SOAK_RUNS = int(os.environ.get("MLOPS_DB_SOAK_RUNS", "6"))
ROWS = """
    INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)
    SELECT now() - n * interval '1 minute', 'model ' || n % 20, 'drift', 'metric ' || n % 5, n
      FROM generate_series(1, 20000) AS n;
    ANALYZE monitoring_metrics;
"""
# Everything that Citus loses, or that a guest has.
SPECIAL = """
    GRANT USAGE ON SCHEMA mlops_internal, reporting TO citus_guest;
    GRANT SELECT ON monitoring_metrics TO citus_guest WITH GRANT OPTION;
    GRANT SELECT (model_name, id), UPDATE (metric_value) ON monitoring_metrics TO citus_guest;
    GRANT SELECT ON mlops_internal.metric_series, mlops_internal.monitoring_metrics_later TO citus_guest;
    GRANT SELECT ON v_recent_monitoring TO citus_guest WITH GRANT OPTION;
    GRANT SELECT (model_name) ON v_recent_monitoring TO citus_guest;
    GRANT USAGE ON SEQUENCE monitoring_metrics_id_seq TO citus_guest;
    COMMENT ON CONSTRAINT monitoring_metrics_pkey ON monitoring_metrics IS 'the key';
    COMMENT ON INDEX mlops_internal.metric_series_pkey IS 'the key of series';
    COMMENT ON TRIGGER monitoring_metrics_register_series ON monitoring_metrics IS 'registers';
    ALTER TABLE monitoring_metrics ALTER COLUMN metric_name SET STATISTICS 500;
    ALTER TABLE monitoring_metrics ALTER COLUMN metadata SET STORAGE EXTERNAL;
    ALTER TABLE monitoring_metrics ALTER COLUMN metadata SET (n_distinct = 5);
    ALTER TABLE mlops_internal.metric_series SET (fillfactor = 70, autovacuum_enabled = off);
    ALTER TABLE mlops_internal.monitoring_metrics_later SET (toast.autovacuum_enabled = off);
    ALTER TABLE mlops_internal.metric_series REPLICA IDENTITY FULL;
    CREATE INDEX by_time ON monitoring_metrics (timestamp);
    CREATE SCHEMA "Own";
    CREATE STATISTICS "Own".kinds ON metric_type, metric_name FROM monitoring_metrics;
    COMMENT ON STATISTICS "Own".kinds IS 'of kinds';
    CREATE VIEW of_owner WITH (security_barrier = true) AS
        SELECT m.*, s.expected_interval FROM monitoring_metrics AS m
          JOIN mlops_internal.metric_series AS s USING (model_name, metric_type, metric_name);
    CREATE VIEW of_one_model WITH (security_barrier = true, check_option = 'local') AS
        SELECT * FROM monitoring_metrics WHERE model_name = 'a';
    COMMENT ON VIEW of_owner IS 'of the owner';
    COMMENT ON COLUMN of_owner.id IS 'its id';
    GRANT SELECT ON of_owner TO citus_guest;
"""
OF_GUEST = """
    CREATE VIEW guests.of_guest AS SELECT * FROM v_recent_monitoring;
    COMMENT ON VIEW guests.of_guest IS 'of a guest';
    CREATE VIEW guests.over_owner AS SELECT * FROM of_owner;
"""
CONTENT = """
    SELECT (SELECT count(*) FROM monitoring_metrics),
           (SELECT md5(string_agg(m::text, ',' ORDER BY m.id)) FROM monitoring_metrics AS m),
           (SELECT md5(string_agg(s::text, ',' ORDER BY s::text)) FROM mlops_internal.metric_series AS s)
"""


def distributed_tables(database: Database) -> set[str]:
    return {
        name
        for (name,) in database.query(
            "SELECT d.logicalrelid::text FROM pg_dist_partition AS d JOIN pg_class AS c ON c.oid = d.logicalrelid"
            " WHERE NOT c.relispartition"
        )
    }


BOTH = {"monitoring_metrics", "mlops_internal.metric_series"}


def dump(database: Database) -> str:
    """The schema, as far as PostgreSQL itself does not change it: some builds show a version of each column."""
    return re.sub(r"pg_attver=\d+(, )?", "", database.dump())


@contextmanager
def guest(cluster: CitusCluster, database: Database) -> Iterator[Database]:
    """A role on all nodes with a schema of its own, and its session on the database."""
    nodes = (cluster.coordinator, *cluster.workers)
    for node in nodes:
        with closing(connect_superuser(node)) as server:
            if not server.execute("SELECT FROM pg_roles WHERE rolname = 'citus_guest'").fetchone():
                server.execute("CREATE ROLE citus_guest LOGIN")
    settings = database.settings
    with closing(connect_superuser(cluster.coordinator, settings.database)) as server:
        server.execute("SET client_min_messages = error; CREATE SCHEMA guests AUTHORIZATION citus_guest")
    with closing(
        psycopg.connect(host=settings.host, port=5432, user="citus_guest", dbname=settings.database, autocommit=True)
    ) as connection:
        yield Database(connection, settings)


def test_a_round_trip_brings_back_everything(two_workers: CitusCluster, undistributed_over_two: Database) -> None:
    database = undistributed_over_two
    with guest(two_workers, database) as other:
        database.connection.execute("SET client_min_messages = error")
        other.connection.execute("SET client_min_messages = error")
        database.query(SPECIAL)
        other.query(OF_GUEST)
        database.query(ROWS)
        before, content = dump(database), database.query(CONTENT)

        done = database.run("mlops-db", "distribute")
        assert done.returncode == 0, done.stderr
        assert "8 shards by model_name" in done.stdout
        assert "about 20," in done.stderr
        assert "NOTICE" not in done.stderr
        assert distributed_tables(database) == BOTH
        assert database.query(CONTENT) == content
        assert other.value("SELECT count(*) FROM guests.of_guest") == 20
        assert database.value("SELECT count(*) FROM v_recent_monitoring") == 20
        again = database.run("mlops-db", "distribute")
        assert "nothing to do" in again.stdout, again.stderr
        # Nothing of the rows is left on the coordinator.
        assert database.value("SELECT pg_relation_size('mlops_internal.metric_series')") == 0

        done = database.run("mlops-db", "undistribute")
        assert done.returncode == 0, done.stderr
        assert not distributed_tables(database)
        assert database.query(CONTENT) == content
        assert dump(database) == before
        assert "nothing to do" in database.run("mlops-db", "undistribute").stdout

        done = database.run("mlops-db", "distribute", "--shards", "4")
        assert done.returncode == 0, done.stderr
        assert database.query(CONTENT) == content
        assert database.value("SELECT count(*) FROM v_recent_monitoring") == 20


def test_after_undistribute_the_revisions_go_down_and_up(over_two: Database) -> None:
    assert over_two.run("mlops-db", "undistribute").returncode == 0
    for command in (("downgrade", "base"), ("upgrade", "head")):
        done = over_two.run("alembic", *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert over_two.run("mlops-db", "distribute").returncode == 0
    assert distributed_tables(over_two) == BOTH


def test_a_plan_changes_nothing_and_says_rows_and_stall(undistributed: Database) -> None:
    undistributed.query(ROWS)
    before = dump(undistributed)
    done = undistributed.run("mlops-db", "distribute", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "distribute  public.monitoring_metrics" in done.stdout
    assert "about 20," in done.stdout
    assert "readers and writers of the metrics wait about 3." in done.stdout
    assert "Now is the time" in done.stdout
    plan = json.loads(undistributed.run("mlops-db", "distribute", "--dry-run", "--json", "--shards", "3").stdout)
    assert (plan["done"], plan["shards"], plan["missing"]) == (False, 3, [])
    assert [step["action"] for step in plan["steps"]] == ["rewrite", "distribute", "distribute"]
    assert dump(undistributed) == before
    assert not distributed_tables(undistributed)


def test_a_view_with_the_casts_of_a_dump_is_written_anew(distributed: Database) -> None:
    distributed.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'a', 1)"
    )
    # What pg_restore and pg_upgrade do.
    (text,) = distributed.query("SELECT pg_get_viewdef('v_recent_monitoring'::regclass)")[0]
    distributed.query(f"CREATE OR REPLACE VIEW v_recent_monitoring AS {text}")
    with pytest.raises(psycopg.Error, match="complex joins"):
        distributed.query("SELECT FROM v_recent_monitoring")

    assert "v_recent_monitoring" in distributed.run("mlops-db", "distribute", "--dry-run").stdout
    done = distributed.run("mlops-db", "distribute")

    assert done.returncode == 0, done.stderr
    assert distributed.value("SELECT count(*) FROM v_recent_monitoring") == 1
    assert "nothing to do" in distributed.run("mlops-db", "distribute").stdout


def test_a_view_that_citus_refuses_for_another_reason_is_left_alone(distributed: Database) -> None:
    distributed.query("""
        CREATE VIEW of_names AS SELECT m.metric_name FROM monitoring_metrics AS m
          FULL JOIN mlops_internal.metric_series AS s ON s.metric_name = m.metric_name
    """)
    with pytest.raises(psycopg.Error, match="complex joins"):
        distributed.query("SELECT FROM of_names")
    assert "nothing to do" in distributed.run("mlops-db", "distribute").stdout


@pytest.mark.parametrize("name", ["truncate_trigger_of_mine", "monitoring_metrics_register_series"])
def test_a_trigger_is_known_by_what_it_runs_not_by_its_name(undistributed: Database, name: str) -> None:
    undistributed.query(f"""
        CREATE FUNCTION public.mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        DROP TRIGGER monitoring_metrics_register_series ON monitoring_metrics;
        CREATE TRIGGER {name} AFTER INSERT ON monitoring_metrics EXECUTE FUNCTION public.mine()
    """)
    done = undistributed.run("mlops-db", "distribute")
    assert done.returncode == 1
    assert f"trigger {name} on public.monitoring_metrics cannot be carried to shards" in done.stderr


def test_another_number_of_shards_is_refused(distributed: Database) -> None:
    assert_failed(distributed.run("mlops-db", "distribute", "--shards", "7"), "into 4 shards, not 7", "undistribute")
    assert distributed.run("mlops-db", "distribute", "--shards", "0").returncode == 64
    assert distributed.run("mlops-db", "distribute", "--shards", "4").returncode == 0


def test_one_answer_lists_all_that_is_missing(two_workers: CitusCluster, undistributed_over_two: Database) -> None:
    database = undistributed_over_two
    name = database.settings.database
    with (
        closing(connect_superuser(two_workers.coordinator, name)) as here,
        closing(connect_superuser(two_workers.workers[0], name)) as there,
    ):
        here.execute("GRANT SELECT ON pg_catalog.time_partitions TO PUBLIC")
        there.execute("GRANT EXECUTE ON FUNCTION pg_catalog.time_partition_range(regclass) TO mlops_owner")
        there.execute("SET citus.enable_ddl_propagation = off")
        there.execute("REVOKE CREATE ON SCHEMA public FROM pg_database_owner")
        here.execute("SELECT citus_set_node_property(nodename, nodeport, 'shouldhaveshards', false) FROM pg_dist_node")
        done = database.run("mlops-db", "distribute")
        assert_failed(
            done,
            "no node may have shards",
            "PUBLIC has SELECT on pg_catalog.time_partitions",
            "REVOKE SELECT ON pg_catalog.time_partitions FROM PUBLIC;",
            "mlops_owner has EXECUTE",
            "may not create tables in schema public",
            'GRANT CREATE ON SCHEMA public TO "mlops_owner";',
        )
    assert not distributed_tables(database)


def test_a_database_without_the_extension_is_told_what_to_do(one_node: CitusCluster) -> None:
    with one_node.database("mlops_bare", owner="mlops_owner") as database:
        with closing(connect_superuser(one_node.coordinator, "mlops_bare")) as server:
            server.execute("SET client_min_messages = error; DROP EXTENSION citus CASCADE")
        assert database.run("alembic", "upgrade", "head").returncode == 0
        assert_failed(
            database.run("mlops-db", "distribute"),
            "CREATE EXTENSION citus;", "citus_set_coordinator_host", "shouldhaveshards", *CLOSE_TIME_PARTITIONS,
        )  # fmt: skip
        assert "nothing to do" in database.run("mlops-db", "undistribute").stdout


def test_a_worker_names_the_coordinator(two_workers: CitusCluster, over_two: Database) -> None:
    for command in ("distribute", "undistribute"):
        done = over_two.run("mlops-db", command, POSTGRES_HOST=str(two_workers.workers[0]))
        assert_failed(done, "is a worker of a Citus cluster", str(two_workers.coordinator))


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (
            (
                "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                "CREATE TRIGGER of_others AFTER INSERT ON monitoring_metrics EXECUTE FUNCTION f()"
            ),
            "trigger of_others",
        ),
        (
            "CREATE TABLE t (m text, t text, n text, FOREIGN KEY (m, t, n) REFERENCES mlops_internal.metric_series)",
            "foreign key t_m_t_n_fkey",
        ),
        ("CREATE POLICY p ON monitoring_metrics USING (true)", "policy p on public.monitoring_metrics"),
        ("CREATE PUBLICATION all_of_it FOR TABLE mlops_internal.metric_series", "publication all_of_it"),
        ("CREATE RULE r AS ON DELETE TO mlops_internal.metric_series DO INSTEAD NOTHING", "rule r"),
        ("CREATE MATERIALIZED VIEW mv AS SELECT * FROM monitoring_metrics", "the materialized view public.mv"),
    ],
)
def test_what_cannot_be_carried_is_named(undistributed: Database, made: str, named: str) -> None:
    undistributed.connection.execute("SET client_min_messages = error")
    for statement in made.split(";CREATE"):
        undistributed.query(statement if statement.startswith("CREATE") else f"CREATE{statement}")
    assert_failed(undistributed.run("mlops-db", "distribute"), named, "nothing was changed")
    assert not distributed_tables(undistributed)


def test_whoever_holds_the_table_is_named(undistributed: Database) -> None:
    with another_session(undistributed, "holder", "SELECT FROM monitoring_metrics"):
        done = undistributed.run("mlops-db", "distribute", MLOPS_RETRY_FOR="5s")
        assert done.returncode == 1
        assert re.search(r"blocked by pid \d+ .*holder.*; nothing was changed$", done.stderr.splitlines()[-2])
    assert not distributed_tables(undistributed)


@pytest.mark.parametrize("prepared", [False, True])
def test_whoever_holds_a_shard_is_named(two_workers: CitusCluster, over_two: Database, *, prepared: bool) -> None:
    worker = two_workers.workers[0]
    shard = over_two.value("SELECT max(shard_name) FROM citus_shards WHERE nodename = %s", [str(worker)])
    database = over_two.settings.database
    with closing(psycopg.connect(host=str(worker), user="postgres", dbname=database)) as holder:
        holder.execute("SET application_name = 'holder'; SET citus.enable_manual_changes_to_shards = on")
        holder.execute(f"LOCK TABLE {shard} IN ACCESS SHARE MODE")
        named = f"pid {holder.info.backend_pid} (holder)"
        if prepared:
            holder.execute("PREPARE TRANSACTION 'holder'")
            named = "a prepared transaction (see pg_prepared_xacts)"
        try:
            done = over_two.run("mlops-db", "undistribute", MLOPS_RETRY_FOR="1s")
        finally:
            holder.rollback()
            if prepared:
                holder.autocommit = True
                holder.execute("ROLLBACK PREPARED 'holder'")
    assert done.returncode == 1
    message, hint = done.stderr.splitlines()[-2:]
    assert message.endswith(f"blocked by {named} on {worker}:5432; nothing was changed")
    assert "then run the same command again." in hint
    assert distributed_tables(over_two) == BOTH


def test_a_session_that_is_ended_is_two_lines(undistributed: Database) -> None:
    find = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LOCK TABLE %'"
    with (
        another_session(undistributed, "holder", "SELECT FROM monitoring_metrics"),
        subprocess.Popen(
            [SCRIPTS / "mlops-db", "distribute"],
            env=undistributed.environment,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process,
    ):
        wait_until(lambda: undistributed.query(f"SELECT pg_terminate_backend(pid) FROM ({find}) AS s"), "the lock")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in errors
    message, hint = errors.splitlines()[-2:]
    assert message.startswith(f"error: the connection to {undistributed.settings.target} broke: terminating connection")
    assert hint == "hint: Look at the server's log, then run the same command again."
    assert not distributed_tables(undistributed)


def test_ten_writers_and_random_kills_lose_nothing(undistributed_over_two: Database, tmp_path: Path) -> None:
    database = undistributed_over_two
    database.query(ROWS)
    chance = random.Random(17)  # noqa: S311  (moments, not secrets)
    hit = {"backend": 0, "command": 0}
    with jobs(database.settings, tmp_path / "jobs") as running:
        for number in range(SOAK_RUNS + 30):
            if number >= SOAK_RUNS and all(hit.values()):  # a command may end before it is killed
                break
            command = ("distribute", "undistribute")[number % 2]
            what = "backend" if number % 3 == 0 else "command"
            hit[what] += _kill(database, command, chance, what)
            assert distributed_tables(database) in (BOTH, set())
            done = database.run("mlops-db", command)
            assert done.returncode == 0, done.stderr
            assert distributed_tables(database) == (BOTH if command == "distribute" else set())
        running.go_on()
        running.stop()
    assert all(hit.values()), hit
    assert running.refused_for_good() == []
    assert database.value("SELECT count(*) FROM mlops_internal.missing_series()") == 0
    assert database.value("SELECT count(*) FROM monitoring_metrics WHERE metadata IS NULL") == 20000
    database.query("DELETE FROM monitoring_metrics WHERE metadata IS NULL")
    assert_rows_are_those_of_confirmed_calls(database, running.calls)


def _kill(database: Database, command: str, chance: random.Random, what: str) -> bool:
    """Start a command, and kill it or its backend at a random moment; wait until the server has noticed.

    Returns whether that ended the command, and not its own success.
    """
    mine = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'to be killed'"
    with subprocess.Popen(
        [SCRIPTS / "mlops-db", command],
        env=database.environment | {"PGAPPNAME": "to be killed"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        wait_until(lambda: database.value(f"SELECT count(*) {mine}"), "the command to connect")
        time.sleep(chance.uniform(0, 0.8))
        if what == "backend":
            database.query(f"SELECT pg_terminate_backend(pid) {mine}")
        else:
            running.kill()
        code = running.wait(60)
        wait_until(lambda: not database.value(f"SELECT count(*) {mine}"), "the end of its backend")
    return code > 0 if what == "backend" else code == -signal.SIGKILL
